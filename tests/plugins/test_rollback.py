"""Whatever goes wrong with an installation, the environment afterwards equals the one before."""

from __future__ import annotations

import hashlib
import os
import signal
import time
import zipfile
from pathlib import Path

import pytest
from modalign import UserError
from modalign.plugin.wheel import read_wheel

from .conftest import FENCE, Environment, offering, write_wheel

HELPER = ""  # no entry points: a plain package
MANY = {f"acme_big/data/{i // 100}/{i}.py": f"x = {i}\n" * 50 for i in range(1000)}
SLEEPS = "import sys, time\nif sys.argv[-1] == {name!r}:\n    time.sleep(600)\n"


def put(environment: Environment, name: str, version: str = "1.0", **more: object) -> None:
    """A distribution that is there before, installed by other means than ours."""
    path = write_wheel(environment.root, name, version=version, **more)  # type: ignore[arg-type]
    done = environment.run("-m", "pip", "install", "--no-deps", "-q", path)
    assert done.returncode == 0, done.stderr


def verbs_work(environment: Environment) -> None:
    listed = environment.plugins("list")
    assert listed.returncode == 0, listed.stderr
    assert "modalign " in listed.stdout
    assert environment.plugins("search", "speech").stdout.startswith("modalign-audio")
    assert environment.plugins("uninstall", "acme-nowhere", "--yes").returncode == 2
    assert environment.plugins("install", "acme-nowhere", "--yes").returncode == 2


def direct(links: Path) -> str:
    return f"acme-helper @ {(links / 'acme_helper-2.0-py3-none-any.whl').as_uri()}"


NEEDS_HELPER = (FENCE, "acme-helper>=2")
FAILURES = {
    "fails the kit": ({"code": offering("No Good"), "requires": NEEDS_HELPER}, "No Good"),
    "raises at import": ({"code": "raise RuntimeError('boom')"}, "boom"),
    "needs another torch": ({"requires": (FENCE, "torch<2")}, "torch<2"),
}
MORE_FAILURES = {
    "needs another core": ({"requires": ("modalign>=99",)}, "modalign>=99"),
    "is no plugin": ({"points": HELPER}, "no plugin"),
    "needs what does not exist": ({"requires": (FENCE, "acme-nowhere>=3")}, "acme-nowhere"),
    "wants a file of its own choice": ({"requires": (FENCE, direct)}, "only an index may"),
    "ends the process": ({"code": "import os\nos._exit(3)"}, "status 3"),
}


@pytest.mark.parametrize("cases", [FAILURES, pytest.param(MORE_FAILURES, marks=pytest.mark.slow)])
def test_a_plugin_that_fails_leaves_no_trace(environment, wheel, cases):
    """One environment, one failure after the other; replaced versions, its own and a helper's, come back."""
    put(environment, "acme-helper", code="version = 1", points=HELPER, requires=())
    put(environment, "acme-fails", version="0.5", requires=(FENCE, "acme-helper"))
    wheel("acme-helper", version="2.0", code="version = 2", points=HELPER, requires=())
    before = environment.state()
    for what, (content, words) in cases.items():
        needs = [r if isinstance(r, str) else r(environment.links) for r in content.get("requires", (FENCE,))]
        path = wheel("acme-fails", **{**content, "requires": tuple(needs)})
        done = environment.plugins("install", path, "--yes")
        assert done.returncode in (1, 2), what
        assert words in done.stderr, f"{what}: {done.stderr}"
        assert "Traceback" not in done.stderr
        assert environment.files() == before[1], what
    assert environment.state() == before
    done = environment.run("-c", "import acme_helper; print(acme_helper.version)")
    assert done.stdout == "1\n"
    verbs_work(environment)


def test_damaged_wheels_are_seen(tmp_path):
    good = write_wheel(tmp_path, "acme-good")
    assert read_wheel(good).groups == {"modalign.plugins"}
    cut, changed = tmp_path / "cut", tmp_path / "changed"
    for folder in (cut, changed):
        folder.mkdir()
    (cut / good.name).write_bytes(good.read_bytes()[:-200])
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(changed / good.name, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (b"# more\n" if name.endswith("__init__.py") else b""))
    for path, words in {
        cut / good.name: "is damaged",
        changed / good.name: "is not what its record says",
        write_wheel(tmp_path, "acme-up", files={"../../outside.py": "x = 1"}): "would write to",
        write_wheel(tmp_path, "acme-root", files={"/etc/outside.py": "x = 1"}): "would write to",
    }.items():
        with pytest.raises(UserError, match=words):
            read_wheel(path)


def test_files_that_harm_are_refused_before_anything_changes(environment, wheel):
    put(environment, "acme-helper", code="version = 1", points=HELPER, requires=())
    put(environment, "acme-user", requires=(FENCE, "acme-helper<2"))
    wheel("acme-helper", version="2.0", points=HELPER, requires=())
    good = wheel("acme-good")
    good.write_bytes(good.read_bytes()[:-200])
    script = "[modalign.plugins]\nx = acme_script\n[console_scripts]\npython = acme_script:main\n"
    before = environment.files()
    for path, words in {
        good: "is damaged",
        wheel("acme-over", files={"acme_helper/__init__.py": "version = 666"}): "would overwrite",
        wheel("acme-script", points=script): "would overwrite",
        wheel("acme-breaks", requires=NEEDS_HELPER): "acme-user 1.0 needs acme-helper<2",
    }.items():
        done = environment.plugins("install", path, "--yes")
        assert done.returncode == 2, (path, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert environment.files() == before, path


PINNED = {
    "summary": "s",
    "trust": "reviewed",
    "requirement": "acme-one",
    "version": "1.1",
    "sha256": "ab" * 32,
    "provides": {"losses": ["acme-one-loss"]},
}


def test_a_pinned_hash_is_enforced(environment, wheel, catalogue):
    good = wheel("acme-one", version="1.1")
    flags = ("--yes", "--registry", catalogue(acme_one=PINNED))
    before = environment.files()
    for given in ("acme-one", good):
        done = environment.plugins("install", given, *flags)
        assert done.returncode == 2, done.stderr
        assert "is not the file that the catalogue pins" in done.stderr
    done = environment.plugins("install", "acme-one==1.0", *flags)
    assert done.returncode == 2
    assert "pins acme-one 1.1" in done.stderr
    assert environment.files() == before


@pytest.mark.slow
def test_the_pinned_file_itself_is_installed(environment, wheel, catalogue):
    good = wheel("acme-one", version="1.1")
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    file = catalogue(acme_one={**PINNED, "sha256": digest})
    done = environment.plugins("install", "acme-one", "--yes", "--registry", file)
    assert done.returncode == 0, done.stderr
    assert "its hash enforced" in done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("    sumary: s", "line 4: acme-one: unknown key 'sumary'"),
        ("    requirement: acme-one @ https://example.org/a.whl", "line 4: acme-one: "),
        ("    sha256: abc", "line 4: acme-one: sha256 must be 64"),
    ],
)
def test_a_bad_catalogue_is_refused_with_the_line(environment, line, words):
    file = environment.root / "mine.yaml"
    rest = "    summary: s\n    trust: listed\n" + (
        "" if "requirement" in line else "    requirement: acme-one\n"
    )
    file.write_text(f"schema: 1\nplugins:\n  acme-one:\n{line}\n{rest}")
    for verb in (("search",), ("install", "acme-one", "--yes")):
        done = environment.plugins(*verb, "--registry", file)
        assert done.returncode == 2
        assert words in done.stderr


def kill(process, children: bool = True) -> None:
    if children:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition, process) -> None:
    for _ in range(3000):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("it did not get there")


def test_an_install_killed_while_it_is_checked(environment, wheel):
    """pip is done, a helper is replaced, the kit is at work; the next verb, here `list`, puts it all back."""
    put(environment, "acme-helper", code="version = 1", points=HELPER, requires=())
    wheel("acme-helper", version="2.0", code="version = 2", points=HELPER, requires=())
    code = SLEEPS.format(name="acme-slow") + offering("slow")
    path = wheel("acme-slow", code=code, requires=(FENCE, "acme-helper>=2"))
    before = environment.state()
    process = environment.start("-m", "modalign.cli", "plugins", "install", path, "--yes")
    wait_for(lambda: list(environment.site.glob("acme_slow-*/RECORD")), process)
    time.sleep(0.5)
    busy = environment.plugins("install", path, "--yes")  # a second one at the same time
    assert busy.returncode == 2
    assert f"process {process.pid}" in busy.stderr
    assert environment.plugins("list").returncode == 0
    kill(process)
    assert environment.state() != before
    done = environment.plugins("list")
    assert done.returncode == 0
    assert "was cut short" in done.stderr
    assert "acme-slow" not in done.stdout
    assert environment.state() == before
    assert "cut short" not in environment.plugins("list").stderr
    verbs_work(environment)


@pytest.mark.parametrize("delay", [0.0, pytest.param(0.1, marks=pytest.mark.slow), pytest.param(0.4, marks=pytest.mark.slow)])  # fmt: skip
def test_an_install_killed_in_the_middle_of_pip(environment, wheel, delay):
    put(environment, "acme-big", version="0.9", files={"acme_big/old.py": "x = 1"})
    path = wheel("acme-big", files=MANY)
    before = environment.state()
    process = environment.start("-m", "modalign.cli", "plugins", "install", path, "--yes")
    wait_for(lambda: (environment.site / "acme_big" / "data").exists(), process)
    time.sleep(delay)
    kill(process)
    assert environment.site.joinpath("acme_big").exists()
    done = environment.plugins("uninstall", "acme-nowhere", "--yes")
    assert "was cut short" in done.stderr
    assert environment.state() == before


@pytest.mark.slow
def test_pip_outlives_its_parent_and_nobody_interferes(environment, wheel):
    path = wheel("acme-big", files=MANY)
    before = environment.state()
    process = environment.start("-m", "modalign.cli", "plugins", "install", path, "--yes")
    wait_for(lambda: (environment.site / "acme_big").exists(), process)
    kill(process, children=False)
    said = environment.plugins("list").stderr  # pip may still be at work
    assert "is changing this environment" in said or "was cut short" in said
    for _ in range(100):
        if "is changing" not in environment.plugins("list").stderr:
            break
        time.sleep(0.1)
    assert environment.state() == before


@pytest.mark.slow
def test_a_killed_uninstall_brings_the_plugin_back(environment, wheel):
    put(environment, "acme-big", files=MANY)
    before = environment.state()
    process = environment.start("-m", "modalign.cli", "plugins", "uninstall", "acme-big", "--yes")
    wait_for(lambda: not (environment.site / "acme_big" / "__init__.py").exists(), process)
    kill(process)
    environment.plugins("list")
    now = environment.state()
    assert now == before or "acme-big" not in now[0]  # it may have been done already


@pytest.mark.slow
def test_ctrl_c_puts_everything_back_at_once(environment, wheel):
    path = wheel("acme-slow", code=SLEEPS.format(name="acme-slow") + offering("slow"))
    before = environment.state()
    process = environment.start("-m", "modalign.cli", "plugins", "install", path, "--yes")
    wait_for(lambda: list(environment.site.glob("acme_slow-*/RECORD")), process)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert environment.state() == before


@pytest.mark.slow
def test_what_somebody_has_installed_since_is_left_alone(environment, wheel):
    path = wheel("acme-slow", code=SLEEPS.format(name="acme-slow") + offering("slow"))
    process = environment.start("-m", "modalign.cli", "plugins", "install", path, "--yes")
    wait_for(lambda: list(environment.site.glob("acme_slow-*/RECORD")), process)
    kill(process)
    put(environment, "acme-slow", version="2.0")
    put(environment, "acme-else")
    listed = environment.plugins("list")
    assert "cut short" in listed.stderr
    assert "acme-slow  2.0" in listed.stdout
    assert "acme-else" in listed.stdout


def test_an_environment_that_must_not_change(environment, wheel, monkeypatch, tmp_path, seen):
    path = wheel("acme-one")
    (environment.site / "sitecustomize.py").write_text(
        "import sys\nsys.modules['pip'] = None\n"  # `import pip` fails, as where there is none
    )
    done = environment.plugins("install", path, "--yes")
    assert done.returncode == 2
    assert "has no pip" in done.stderr
    assert "ensurepip" in done.stderr
    marked = tmp_path / "stdlib"
    marked.mkdir()
    (marked / "EXTERNALLY-MANAGED").touch()
    (environment.site / "sitecustomize.py").write_text(
        "import sys, sysconfig\nsys.base_prefix = sys.prefix\nfound = sysconfig.get_path\n"
        f"sysconfig.get_path = lambda n, *a: {str(marked)!r} if n == 'stdlib' else found(n, *a)\n"
    )
    done = environment.plugins("install", path, "--yes")
    assert done.returncode == 2
    assert "managed by the system" in done.stderr
    assert "-m venv" in done.stderr
