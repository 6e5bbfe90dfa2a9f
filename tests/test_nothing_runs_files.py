"""No module may call what runs code that a file holds, or unpacks archives blindly."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
SOURCES = sorted(
    p for folder in (TOP / "core", *(TOP / "plugins").glob("*/modalign_*")) for p in folder.rglob("*.py")
)
CALLS = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "cPickle.load", "dill.load", "joblib.load",
    "shelve.open", "marshal.load", "marshal.loads", "pandas.read_pickle", "pd.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "yaml.load_all", "os.system", "os.popen", "tarfile.extractall", "zipfile.extractall", "shutil.unpack_archive", "torch.hub.load", "torch.jit.load",
    "runpy.run_path", "code.interact",
}  # fmt: skip
METHODS = {"extractall", "read_pickle", "unsafe_load", "full_load"}
"""Of any object."""
KEYWORDS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False}
ALLOWED = {
    (
        "core/modalign/testing/modality.py",
        "pickle.loads",
    ): "a copy of an object that the same line has pickled",
}
"""``(file, what)``: why it is safe there."""


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def risky(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every call that a file could use to run code, under whatever name it was imported."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {(a.asname or a.name): a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            known |= {(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, _, rest = _name(node.func).partition(".")
            name = known.get(head, head) + ("." + rest if rest else "")
            given = {k.arg: k.value for k in node.keywords if k.arg}
            if name in CALLS or name.rpartition(".")[2] in METHODS:
                yield node.lineno, name
            if name in ("torch.load", "torch.serialization.load") and "weights_only" not in given:
                yield node.lineno, f"{name} without weights_only=True"
            for keyword, value in given.items():
                if keyword in KEYWORDS and not (
                    isinstance(value, ast.Constant) and value.value is not KEYWORDS[keyword]
                ):
                    yield node.lineno, f"{name}({keyword}=...)"


@pytest.mark.parametrize("file", SOURCES, ids=lambda p: str(p.relative_to(TOP)))
def test_no_call_that_runs_what_a_file_holds(file: Path) -> None:
    found = [
        (line, what)
        for line, what in risky(ast.parse(file.read_text(encoding="utf-8")))
        if (str(file.relative_to(TOP)), what) not in ALLOWED
    ]
    assert not found, f"{file}: {found}"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle as p\np.load(f)",
        "from pickle import loads\nloads(x)",
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy as np\nnp.load(f, allow_pickle=flag)",
        "import yaml\nyaml.load(f, yaml.Loader)",
        "eval(x)",
        "import subprocess\nsubprocess.run(x, shell=True)",
        "import tarfile\nwith tarfile.open(x) as t:\n    t.extractall()",
        "Auto.from_pretrained(x, trust_remote_code=True)",
    ],
)
def test_the_check_sees_them(code: str) -> None:
    assert list(risky(ast.parse(code)))
