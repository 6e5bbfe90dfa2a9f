"""The repository keeps its own promises: layout, imports, docs, catalogue."""

from __future__ import annotations

import ast
import graphlib
import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import modalign
import pytest
from modalign.cli import main
from modalign.plugin import hookspecs, loader, registry
from modalign.plugin.component import KINDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "core" / "modalign"
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "scaffold" not in path.parts
}
"""Every module by its name below ``modalign``; ``""`` is the package itself."""
HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, "modalign_spec")]
DECLARATIONS = {"plugin.component", "plugin.hookspecs"}


# --- imports -------------------------------------------------------------------------------------


def imports(tree: ast.AST, module: str, package: bool) -> Iterator[str]:
    """The modules of ours that ``tree`` imports, named below ``modalign``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            ours = [alias.name for alias in node.names if alias.name.split(".")[0] == "modalign"]
            yield from (name.removeprefix("modalign").lstrip(".") for name in ours)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                parts = module.split(".") if module else []
                parts = parts[: len(parts) - node.level + package]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            elif node.module and node.module.split(".")[0] == "modalign":
                base = node.module.removeprefix("modalign").lstrip(".")
            else:
                continue
            for alias in node.names:
                below = f"{base}.{alias.name}".lstrip(".")
                if below in SOURCES:
                    yield below
                elif base == "":
                    yield modalign._NAMES.get(alias.name, "")
                else:
                    yield base


def imports_of(module: str) -> set[str]:
    path = SOURCES[module]
    return set(imports(ast.parse(path.read_text()), module, path.name == "__init__.py"))


def below(module: str, floors: set[str]) -> bool:
    return any(module == floor or module.startswith(f"{floor}.") for floor in floors)


def test_the_import_reader_reads_imports():
    code = (
        "from .a import b\nfrom ..contracts import Loss\nimport modalign.space\nfrom modalign import Task\n"
    )
    code += "def f():\n    from modalign.cli.main import main\n    from . import loader\n"
    found = set(imports(ast.parse(code), "plugin.x", False))
    assert found == {"plugin.a", "contracts", "space", "cli.main", "plugin.loader"}


ONLY = {  # floor -> all that it may import of ours
    "contracts": {"contracts"},
    "errors": set(),
    "plain_yaml": {"errors"},
    "plugin": {"plugin", "contracts", "errors", "plain_yaml"},
    "losses": {"losses", "contracts", "errors", *DECLARATIONS},
    "projections": {"projections", "contracts", "errors", *DECLARATIONS},
}


@pytest.mark.parametrize("floor", ONLY)
def test_lower_floors_import_only_what_is_below(floor):
    for module in [module for module in SOURCES if below(module, {floor})]:
        wrong = {name for name in imports_of(module) if name and not below(name, ONLY[floor])}
        assert not wrong, f"{module} imports {wrong}"


def test_upper_floors_import_nothing_above_them():
    for module in SOURCES:
        above = {"cli"}
        if not below(module, {"cli", "explore", ""}):
            above |= {"explore"}
        if not below(module, {"cli", "explore", "search", ""}):
            above |= {"search"}
        if not below(module, {"cli", "explore", "search", "training", "testing", "report", ""}):
            above |= {"training"}
        if not below(module, {"cli"}) and module:
            wrong = {name for name in imports_of(module) if below(name, above)}
            assert not wrong, f"{module} imports {wrong}"


def top_level(tree: ast.Module) -> ast.Module:
    """Without functions and ``if TYPE_CHECKING``: what runs on import."""
    kept: list[ast.stmt] = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    return ast.Module(kept, [])


def test_no_circle():
    graph = {
        module: set(imports(top_level(ast.parse(path.read_text())), module, path.name == "__init__.py"))
        for module, path in SOURCES.items()
    }
    graphlib.TopologicalSorter({m: {n for n in names if n != m} for m, names in graph.items()}).prepare()


def plugin_sources() -> list[Path]:
    folders = [path.parent for path in ROOT.glob("plugins/*/pyproject.toml")]
    return [f for d in folders for f in sorted(d.rglob("*.py")) if "tests" not in f.relative_to(d).parts]


def test_plugins_import_contracts_and_declarations_alone():
    for path in plugin_sources():
        found = {name for name in imports(ast.parse(path.read_text()), "no.such", False) if name}
        wrong = {n for n in found if not below(n, {"contracts", "errors", "no", *DECLARATIONS})}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_imports_and_says_what_it_is_for(module):
    loaded = importlib.import_module(f"modalign.{module}".rstrip("."))
    first = (loaded.__doc__ or "").strip().split("\n\n")[0]
    assert first, f"{module} has no docstring"
    assert len(first.split(". ")[0].split()) <= 20, first


def test_import_modalign_is_light():
    code = "import sys, modalign; modalign.Component; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {
        "torch",
        "numpy",
        "mlflow",
        "transformers",
        "lightning",
        "pydantic",
        "pyarrow",
        "rich",
    }
    assert "modalign" in loaded


def test_every_public_name_resolves():
    for name in modalign.__all__:
        assert getattr(modalign, name) is not None


# --- nothing in core names a modality ------------------------------------------------------------


def literals(tree: ast.AST) -> Iterator[ast.Constant]:
    """Every string literal that is not a docstring (a string standing alone)."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node


def test_core_names_no_modality():
    named = {name for entry in registry.entries() for name in entry.provides.get("modalities", ())}
    named |= {"image", "text", "audio", "video", "midi", "ecg", "molecule"}
    named -= {"score", "vector"}  # sheet music and features, but also what search gives and takes
    wrong = [
        f"{module}, line {node.lineno}: {node.value!r}"
        for module, path in SOURCES.items()
        for node in literals(ast.parse(path.read_text()))
        if node.value in named
    ]
    assert not wrong, "\n".join(wrong)


# --- hooks ---------------------------------------------------------------------------------------


def test_kinds_and_hooks_agree():
    assert [f"register_{kind}" for kind in KINDS] == [h for h in HOOKS if h.startswith("register_")]
    assert len(HOOKS) > len(KINDS)


def test_every_hook_is_documented_with_its_arguments():
    page = (ROOT / "docs" / "plugins" / "hooks.md").read_text()
    expected = []
    for name in HOOKS:
        signature = inspect.signature(getattr(hookspecs, name))
        expected.append(f"{name}({', '.join(signature.parameters)}) -> {signature.return_annotation}")
    assert re.findall(r"^### `(.*)`$", page, re.MULTILINE) == expected


def test_every_hook_has_a_test():
    from .test_loader import EVENTS

    assert sorted(HOOKS) == sorted([*(f"register_{kind}" for kind in KINDS), *EVENTS])


def test_the_plugin_on_the_hooks_page_declares_what_it_shows():
    page = (ROOT / "docs" / "plugins" / "hooks.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    (component,) = names["register_modalities"]()  # type: ignore[operator]
    assert isinstance(component, modalign.Component)


# --- catalogue -----------------------------------------------------------------------------------


def test_the_catalogue_is_what_installed_plugins_declare():
    listed = {entry.distribution: entry for entry in registry.entries()}
    for plugin in loader.plugins():
        if plugin.distribution in listed and plugin.loaded:
            declared = {
                kind: tuple(sorted(component.name for component in offered))
                for kind, offered in plugin.components.items()
                if offered
            }
            assert declared == listed[plugin.distribution].provides, plugin.distribution


def test_our_plugins_all_load():
    ours = {entry.distribution for entry in registry.entries() if entry.source} | {"modalign"}
    broken = {p.distribution: p.problem for p in loader.plugins() if p.distribution in ours and p.problem}
    assert not broken


def test_the_catalogue_lists_every_plugin_folder_and_nothing_else():
    folders = {}
    for path in ROOT.glob("plugins/*/pyproject.toml"):
        (name,) = re.findall(r'^name = "(.*)"$', path.read_text(), re.MULTILINE)
        folders[f"plugins/{path.parent.name}"] = name
    assert {e.source: e.distribution for e in registry.entries() if e.source} == folders


# --- README --------------------------------------------------------------------------------------


def readme_commands() -> list[str]:
    found = []
    pages = [*ROOT.glob("README.md"), *ROOT.glob("plugins/*/README.md"), *ROOT.glob("docs/**/*.md")]
    for page in sorted(pages):
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
            lines = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
            if any(line.startswith("$ ") for line in lines):  # the others are what is printed
                lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            found += [line for line in lines if re.match(r"(\.venv/bin/)?modalign( |$)", line)]
    return found


def command_problem(line: str) -> str | None:
    """Why a shell line with ``modalign`` names a verb or an option that does not exist."""
    words = shlex.split(line, comments=True)[1:]
    words = words[: next((i for i, word in enumerate(words) if word in ("|", ">", "&&", ";", "&")), None)]
    command: click.Command = main.group
    context = click.Context(command, info_name="modalign")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        verb = words.pop(0)
        found = command.get_command(context, verb)
        if found is None:
            return f"no verb {verb}"
        command, context = found, click.Context(found, parent=context)
    known = {flag for parameter in command.get_params(context) for flag in parameter.opts}
    known |= {flag for parameter in command.get_params(context) for flag in parameter.secondary_opts}
    wrong = [word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known]
    return f"no option {wrong[0]}" if wrong else None


@pytest.mark.parametrize("line", readme_commands() or ["modalign --version"])
def test_readme_commands_exist(line):
    assert command_problem(line) is None


def test_the_command_reader_finds_mistakes():
    assert command_problem("modalign list losses --json | head") is None
    assert command_problem("modalign plugins list --json  # a comment") is None
    assert command_problem("modalign lst") == "no verb lst"
    assert command_problem("modalign plugins lst") == "no verb lst"
    assert command_problem("modalign list --jsn") == "no option --jsn"


def test_every_verb_exists_under_its_name(capsys):
    for verb, (module, _) in main.VERBS.items():
        if importlib.util.find_spec(module) is not None:
            assert isinstance(importlib.import_module(module).command, click.Command)
            assert main.main([verb, "--help"]) == 0
            assert f"Usage: modalign {verb} " in capsys.readouterr().out


def test_every_key_of_a_plan_is_documented():
    from modalign.training import plan as schema

    page = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    parts = [p for p in vars(schema).values() if isinstance(p, type) and issubclass(p, schema.Part)]
    missing = {f"{p.__name__}.{key}" for p in parts for key in p.model_fields if f"`{key}`" not in page}
    missing -= {"Select.task", "Select.every", "Select.patience", "Views.views"}  # shown inside an example
    assert not missing
