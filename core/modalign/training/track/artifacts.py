"""Which files of a run folder go to MLflow, and how."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from .names import redact

FILES = ("plan.yaml", "report.json", "report.html", "quarantine.csv")
FOLDERS = ("figures", "space")
_TEXT = frozenset({".yaml", ".yml", ".json", ".html", ".csv", ".md", ".txt"})


def artifacts(folder: Path) -> list[str]:
    """The files there are, relative to the run folder, with forward slashes."""
    files = [folder / name for name in FILES]
    for name in FOLDERS:
        files += sorted((folder / name).rglob("*"))
    return [path.relative_to(folder).as_posix() for path in files if path.is_file()]


def upload(client: Any, run_id: str, folder: Path, path: str) -> None:
    """One file to the same place among the run's artifacts; credentials in a text are left out."""
    file = folder / path
    if file.suffix in _TEXT:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        if redact(text) != text:
            client.log_text(run_id, redact(text), path)
            return
    parent = PurePosixPath(path).parent.as_posix()
    client.log_artifact(run_id, str(file), None if parent == "." else parent)


def upload_model(client: Any, run_id: str, folder: Path) -> None:
    """What makes the run's ``space`` an MLflow model, so that ``runs:/ID/space`` can be registered."""
    try:
        about = json.loads((folder / "space" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is no space yet
        return
    if not isinstance(about, dict) or not {"modalign", "plugins", "modalities", "dim"} <= set(about):
        return
    from mlflow.models import Model

    from modalign.mlflow.flavor import write_beside

    with tempfile.TemporaryDirectory() as beside:
        write_beside(Path(beside), about, Model(artifact_path="space", run_id=run_id))
        for file in sorted(Path(beside).iterdir()):
            client.log_artifact(run_id, str(file), "space")
