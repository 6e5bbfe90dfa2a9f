"""The loader: what is found, what is refused, what one plugin cannot do to the others."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import modalign
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modalign import UserError, hookimpl
from modalign.plugin import discover, hookspecs, loader
from modalign.plugin.component import KINDS

COUNTER = itertools.count()
HEAD = "from modalign import Component, hookimpl\n"
FENCE = "modalign>=0.1,<0.2"
RUN = "import sys; from modalign.cli.main import main; sys.exit(main())"
EVENTS = ["run_started", "stage_started", "step_finished", "stage_finished", "run_finished"]


def offering(*names: str, kind: str = "losses", target: str = "modalign.losses.infonce:InfoNCE") -> str:
    listed = ", ".join(f"Component({name!r}, {target!r}, 'from a test')" for name in names)
    return f"{HEAD}@hookimpl\ndef register_{kind}(): return [{listed}]\n"


def install(folder: Path, name: str, code: str | None, requires: str | None = FENCE, version="1.0") -> str:
    """A distribution as an installer leaves it: a module and a dist-info folder. Returns the module."""
    module = f"plugin_of_a_test_{next(COUNTER)}"
    if code is not None:
        (folder / f"{module}.py").write_text(code)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    (info / "entry_points.txt").write_text(f"[{loader.GROUP}]\n{name} = {module}\n")
    return module


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty folder at the front of the path, and a loader that knows nothing yet."""
    for variable in ("MODALIGN_DISABLE", "MODALIGN_STRICT", "MODALIGN_REGISTRY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    loader.reset()
    yield tmp_path
    loader.reset()
    for name in [name for name in sys.modules if name.startswith("plugin_of_a_test_")]:
        del sys.modules[name]


def row(name: str) -> loader.Plugin:
    (found,) = [plugin for plugin in loader.plugins() if plugin.distribution == name]
    return found


BROKEN = {
    "raises": ("raise RuntimeError('boom at import')", FENCE, "boom at import"),
    "exits": ("import sys; sys.exit('bye')", FENCE, "SystemExit"),
    "missing-module": (None, FENCE, "ModuleNotFoundError"),
    "needs-a-module": ("import no_such_module_anywhere", FENCE, "no_such_module_anywhere"),
    "other-core": (offering("x"), "modalign>=99", "needs modalign >=99"),
    "no-requirement": (offering("x"), None, "declares no requirement"),
    "only-extra": (offering("x"), "modalign>=0.1; extra == 'all'", "declares no requirement"),
    "bad-requirement": (offering("x"), "modalign >> 3", "InvalidRequirement"),
    "misspelt": (HEAD + "@hookimpl\ndef register_loss(): return []", FENCE, "did you mean 'register_losses'"),
    "unmarked": ("def register_losses(): return []", FENCE, "is @hookimpl missing?"),
    "empty": ("x = 1", FENCE, "implements no hook; is @hookimpl missing?"),
    "not-components": (
        HEAD + "@hookimpl\ndef register_losses(): return ['infonce']",
        FENCE,
        "list of Component",
    ),
    "not-a-list": (HEAD + "@hookimpl\ndef register_losses(): return None", FENCE, "list of Component"),
    "twice": (offering("x", "x"), FENCE, "declares x twice"),
    "bad-name": (offering("No Good"), FENCE, "ValueError"),
    "bad-argument": (HEAD + "@hookimpl\ndef run_started(rnu): pass", FENCE, "rnu"),
    "wrapper": (HEAD + "@hookimpl(wrapper=True)\ndef register_losses(): return (yield)", FENCE, "wrapper"),
    "raises-in-hook": (HEAD + "@hookimpl\ndef register_tasks(): 1 / 0", FENCE, "ZeroDivisionError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_a_row_and_the_others_work(site, name):
    code, requires, words = BROKEN[name]
    install(site, f"acme-{name}", code, requires)
    install(site, "zeta-fine", offering("fine"))
    broken = row(f"acme-{name}")
    assert words in broken.problem
    assert "\n" not in broken.problem
    assert not broken.loaded
    assert broken.components == {}
    assert loader.resolve("losses", "fine").full_name == "zeta-fine:fine"
    assert row("zeta-fine").problem is None
    assert loader.resolve("losses", "infonce").distribution == "modalign"


def test_every_broken_plugin_at_once_on_the_command_line(site, monkeypatch):
    for name, (code, requires, _) in BROKEN.items():
        install(site, f"acme-{name}", code, requires)
    install(site, "zeta-fine", "print('noise on stdout')\n" + offering("fine"))
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, "plugins", "list", "--json"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {each["distribution"]: each for each in json.loads(done.stdout)}
    for name, (_, _, words) in BROKEN.items():
        assert words in rows[f"acme-{name}"]["problem"]
    assert rows["zeta-fine"]["ok"]
    assert list(rows) == sorted(rows)


def test_keyboard_interrupt_is_not_swallowed(site):
    install(site, "acme-slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        loader.plugins()


@pytest.mark.parametrize("name", ["raises", "exits", "other-core", "misspelt", "raises-in-hook"])
def test_strict_raises(site, monkeypatch, name):
    code, requires, _ = BROKEN[name]
    install(site, f"acme-{name}", code, requires)
    monkeypatch.setenv("MODALIGN_STRICT", "1")
    with pytest.raises((Exception, SystemExit)):
        loader.plugins()


def test_a_failed_plugin_leaves_no_hook_behind(site):
    install(site, "acme-half", HEAD + "@hookimpl\ndef run_finished(): 1/0\n@hookimpl\ndef register_loss(): 0")
    assert "register_loss" in row("acme-half").problem
    assert loader.call("run_finished", run=None, status="ok") == []
    assert loader.failures() == {}


@pytest.mark.parametrize("refused", ["other-core", "no-requirement"])
def test_a_refused_plugin_is_not_imported(site, refused):
    module = install(site, "acme-refused", *BROKEN[refused][:2])
    assert row("acme-refused").problem
    assert module not in sys.modules


@pytest.mark.parametrize("word", ["modalign-lidar", "lidar", "Modalign_Lidar"])
def test_disabled_before_import(site, monkeypatch, word):
    module = install(site, "modalign-lidar", offering("lidar-loss"))
    monkeypatch.setenv("MODALIGN_DISABLE", f"nothing, {word}")
    assert row("modalign-lidar").disabled
    assert "MODALIGN_DISABLE" in row("modalign-lidar").problem
    assert module not in sys.modules
    with pytest.raises(UserError, match=r"no loss named 'lidar-loss'.*modalign-lidar \(disabled by"):
        loader.resolve("losses", "lidar-loss")


def test_a_plan_disables_only_for_itself(site):
    install(site, "modalign-lidar", offering("lidar-loss"))
    loader.disable(["lidar"])
    assert row("modalign-lidar").disabled
    loader.disable([])
    assert loader.resolve("losses", "lidar-loss").distribution == "modalign-lidar"


@given(st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,5})?", fullmatch=True), st.booleans())
def test_disabling_hits_the_named_plugin_alone(name, short):
    word = name if short else f"modalign-{name}"
    assert discover.disabled_by(f"modalign-{name}", [word])
    assert discover.disabled_by(f"modalign-{name}x", [word]) is None
    assert bool(discover.disabled_by(name, [word])) == short


def test_one_name_from_two_plugins_is_an_error_that_lists_both(site):
    install(site, "acme-one", offering("shared", "own"))
    install(site, "acme-two", offering("shared"))
    with pytest.raises(UserError, match=r"acme-one:shared and acme-two:shared.*full name"):
        loader.resolve("losses", "shared")
    assert loader.resolve("losses", "acme-two:shared").distribution == "acme-two"
    assert loader.resolve("losses", "own").full_name == "acme-one:own"
    full = [offer.full_name for offer in loader.components("losses")]
    assert full.index("acme-one:shared") + 1 == full.index("acme-two:shared")


def test_same_distribution_twice_counts_once_and_the_first_on_the_path_wins(site, monkeypatch):
    later = site / "later"
    later.mkdir()
    sys.path.append(str(later))
    try:
        install(later, "acme-one", offering("old"), version="1.0")
        install(site, "acme-one", offering("new"), version="2.0")
        assert row("acme-one").version == "2.0"
        assert loader.resolve("losses", "new").version == "2.0"
        sys.path.append(str(site))  # the very same folder once more
        loader.reset()
        assert row("acme-one").problem is None
    finally:
        sys.path.remove(str(later))


def test_spelling_of_a_distribution_name_does_not_matter(site):
    install(site, "Acme_One", offering("new"))
    assert row("acme-one").loaded
    assert loader.resolve("losses", "acme-one:new")


def test_several_entry_points_are_one_row_and_fail_together(site):
    first = install(site, "acme-many", offering("a"))
    second = install(site / "elsewhere", "unused", None)
    (site / f"{second}.py").write_text(offering("b") + "@hookimpl\ndef run_finished(status): return status\n")
    points = site / "acme_many-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[{loader.GROUP}]\none = {first}\ntwo = {second}\nagain = {second}\n")
    assert {c.name for c in row("acme-many").components["losses"]} == {"a", "b"}
    assert loader.call("run_finished", run=1, status="ok") == [("acme-many", "ok")]
    (site / f"{second}.py").write_text("raise RuntimeError('second')")
    del sys.modules[second]
    loader.reset()
    assert "second" in row("acme-many").problem
    with pytest.raises(UserError):
        loader.resolve("losses", "a")


def test_damaged_metadata_elsewhere_does_no_harm(site):
    info = site / "unrelated-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[console_scripts]\nthis is not an entry point\n")
    (site / "empty-1.0.dist-info").mkdir()
    install(site, "acme-damaged", None)
    (site / "acme_damaged-1.0.dist-info" / "entry_points.txt").write_text(f"[{loader.GROUP}]\nnonsense\n")
    install(site, "acme-fine", offering("fine"))
    assert "metadata" in row("acme-damaged").problem
    assert row("acme-fine").loaded


def test_unknown_name_says_what_exists_and_what_to_type(site, monkeypatch):
    install(site, "acme-broken", "raise RuntimeError('boom')")
    catalogue = site / "registry.yaml"
    catalogue.write_text(
        "schema: 1\nplugins:\n  acme-far:\n    summary: s\n    trust: listed\n"
        "    requirement: acme-far>=1\n    provides: {losses: [far-loss]}\n"
    )
    monkeypatch.setenv("MODALIGN_REGISTRY", str(catalogue))
    for name in ("far-loss", "acme-far:far-loss"):
        with pytest.raises(UserError) as caught:
            loader.resolve("losses", name)
        text = str(caught.value)
        assert name in text
        assert "infonce" in text
        assert "acme-broken (RuntimeError: boom)" in text
        assert text.endswith("Run: modalign plugins install acme-far")
    with pytest.raises(UserError, match="did you mean 'infonce'"):
        loader.resolve("losses", "infonec")
    with pytest.raises(UserError, match="did you mean 'losses'"):
        loader.resolve("loses", "infonce")
    catalogue.write_text("{")  # a damaged catalogue does not hide the message
    with pytest.raises(UserError, match="no loss named"):
        loader.resolve("losses", "far-loss")


def test_load_imports_on_use_and_checks_the_kind(site, monkeypatch):
    module = install(site, "acme-targets", None)
    parts = {
        "good": "from modalign import Loss\nclass It(Loss):\n    def forward(self, z): return 0",
        "wrong_kind": "class It: pass",
        "no_class": "x = 1",
        "raising": "import nothing_of_that_name",
        "exiting": "raise SystemExit(3)",
    }
    for name, code in parts.items():
        (site / f"{module}_{name}.py").write_text(code)
    listed = ", ".join(f"Component({n!r}, '{module}_{n}:It', 's')" for n in parts)
    (site / f"{module}.py").write_text(f"{HEAD}@hookimpl\ndef register_losses(): return [{listed}]")
    loader.plugins()
    assert not [name for name in sys.modules if name.startswith(f"{module}_")]
    assert issubclass(loader.load("losses", "good"), modalign.Loss)
    for name, words in {
        "wrong_kind": "not a subclass of modalign.Loss",
        "no_class": "has no It",
        "raising": "nothing_of_that_name",
        "exiting": "SystemExit: 3",
    }.items():
        with pytest.raises(UserError, match=rf"acme-targets:{name}.*{words}"):
            loader.load("losses", name)
    monkeypatch.setenv("MODALIGN_STRICT", "1")
    with pytest.raises(ModuleNotFoundError):
        loader.load("losses", "raising")


@pytest.mark.parametrize("hook", [f"register_{kind}" for kind in KINDS] + EVENTS)
def test_every_hook_reaches_a_plugin_with_the_arguments_it_names(site, hook):
    spec = getattr(hookspecs, hook)
    names = spec.__code__.co_varnames[: spec.__code__.co_argcount]
    module = install(site, "acme-hears", "")
    body = "[]" if not names else ", ".join(names)
    (site / f"{module}.py").write_text(f"{HEAD}@hookimpl\ndef {hook}({', '.join(names)}): return {body}")
    sent = {name: f"the {name}" for name in names}
    (answer,) = [value for who, value in loader.call(hook, **sent) if who == "acme-hears"]
    assert answer == ([] if not names else sent[names[0]] if len(names) == 1 else tuple(sent.values()))


def test_an_event_that_raises_is_reported_once_and_never_stops_the_others(site, caplog, monkeypatch):
    install(
        site, "acme-bad", offering("kept") + "@hookimpl\ndef step_finished(step): raise OSError(f'at {step}')"
    )
    install(site, "beta-good", HEAD + "@hookimpl\ndef step_finished(step): return step")
    for step in (1, 2, 3):
        answers = loader.call("step_finished", run=0, stage=0, step=step, metrics={})
        assert answers == [("beta-good", step)]
    assert len([record for record in caplog.records if "acme-bad" in record.getMessage()]) == 1
    assert "at 3" in row("acme-bad").problem
    assert "step_finished" in loader.failures()["acme-bad"]
    assert loader.resolve("losses", "kept")  # what it offers still holds
    monkeypatch.setenv("MODALIGN_STRICT", "1")
    with pytest.raises(OSError, match="at 4"):
        loader.call("step_finished", run=0, stage=0, step=4, metrics={})


class Listener:
    def __init__(self) -> None:
        self.heard: list[object] = []

    @hookimpl
    def run_finished(self, status):
        self.heard.append(status)
        if status == "failed":
            raise RuntimeError("cannot say so")


def test_registered_objects_hear_events_for_the_duration(site, monkeypatch):
    one, two, off = Listener(), Listener(), Listener()
    monkeypatch.setenv("MODALIGN_DISABLE", "off")
    with loader.registered(tracker=one, off=off):
        with loader.registered(bar=two):
            assert dict(loader.call("run_finished", run=0, status="ok")) == {"tracker": None, "bar": None}
        loader.disable(["nothing"])  # rebuilds the list of plugins: the object stays
        loader.call("run_finished", run=0, status="failed")
    loader.call("run_finished", run=0, status="late")
    assert one.heard == ["ok", "failed"]
    assert two.heard == ["ok"]
    assert off.heard == []
    assert "cannot say so" in loader.failures()["tracker"]
