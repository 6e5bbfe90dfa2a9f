"""Fresh environments in a tenth of a second, and wheels made by hand."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_path("purelib"))
FENCE = "modalign>=0.1,<0.2"
TARGET = "modalign.losses.infonce:InfoNCE"


class Environment:
    """A virtual environment that sees what the tests' own environment holds, but not our plugins.

    What it sees lies outside of it, as far as pip is concerned: it cannot be removed from here.
    """

    def __init__(self, root: Path, sees: Path) -> None:
        self.root = root
        venv.create(root / "env", with_pip=False, symlinks=True)
        self.python = root / "env" / "bin" / "python"
        self.site = next((root / "env" / "lib").glob("python3*/site-packages"))
        (self.site / "zz_outer.pth").write_text(f"import site; site.addsitedir({str(sees)!r})\n")
        self.links = root / "links"
        self.links.mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MODALIGN_", "PIP_", "PYTHON"))}
        self.variables = {
            **kept,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.links),
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's way of saying --no-build-isolation
            "PIP_CONFIG_FILE": os.devnull,
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "MODALIGN_CACHE": str(root / "cache"),
        }

    def start(self, *arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
        """``python`` with these arguments, in a process group of its own."""
        return subprocess.Popen(
            [str(self.python), *map(str, arguments)],
            env={**self.variables, **variables}, cwd=self.root, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)

    def modalign(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "modalign.cli", *arguments, **variables)

    def plugins(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.modalign("plugins", *arguments, **variables)

    def state(self) -> tuple[str, dict[str, str]]:
        """All that an installation could change: what ``pip freeze`` says, and every file's content."""
        frozen = self.run("-m", "pip", "freeze", "--all")
        assert frozen.returncode == 0, frozen.stderr
        assert "WARNING" not in frozen.stderr
        return frozen.stdout, self.files()

    def files(self) -> dict[str, str]:
        """Every file's content, and the folders there are."""
        files = {}
        for folder in (self.site, self.python.parent):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    files[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
                elif path.is_dir() and path.name != "__pycache__":
                    files[str(path)] = "folder"
        return files


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' own site-packages, entry by entry, without our plugins."""
    folder = tmp_path_factory.mktemp("outer")
    for entry in SITE.iterdir():
        if not entry.name.removeprefix("_editable_impl_").startswith("modalign_"):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def environment(tmp_path: Path, seen: Path) -> Environment:
    if sys.platform == "win32":
        pytest.skip("needs symbolic links")
    return Environment(tmp_path, seen)


def offering(*names: str, kind: str = "losses", target: str = TARGET) -> str:
    """The module of a plugin that offers components of one kind."""
    listed = ", ".join(f"Component({name!r}, {target!r}, 'from a test')" for name in names)
    return f"from modalign import Component, hookimpl\n@hookimpl\ndef register_{kind}(): return [{listed}]\n"


def write_wheel(
    folder: Path,
    name: str,
    code: str | None = None,
    version: str = "1.0",
    requires: tuple[str, ...] = (FENCE,),
    files: Mapping[str, str] | None = None,
    points: str | None = None,
) -> Path:
    """A wheel as a builder makes it: of a plugin, unless ``points`` (entry points) say otherwise."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    content = {f"{module}/__init__.py": offering(f"{name}-loss") if code is None else code, **(files or {})}
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    content[f"{info}/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    given = f"[modalign.plugins]\n{name} = {module}\n" if points is None else points
    if given:
        content[f"{info}/entry_points.txt"] = given
    record = "".join(
        f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in content.items()
    )
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for each, text in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(each, text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def wheel(environment: Environment) -> Callable[..., Path]:
    """Writes a wheel where the environment's pip looks for packages, instead of an index."""

    def write(name: str, *arguments: object, **more: object) -> Path:
        return write_wheel(environment.links, name, *arguments, **more)  # type: ignore[arg-type]

    return write


@pytest.fixture
def catalogue(environment: Environment) -> Callable[..., Path]:
    """Writes a catalogue above our own and returns its file; a mapping per distribution."""
    import yaml

    def write(**plugins: dict[str, object]) -> Path:
        given = {name.replace("_", "-"): entry for name, entry in sorted(plugins.items())}
        path = environment.root / "registry.yaml"
        path.write_text(yaml.safe_dump({"schema": 1, "plugins": given}))
        return path

    return write
