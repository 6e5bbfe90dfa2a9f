"""A new SQLite database for MLflow appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SQLITE = "sqlite:///"


def make_database(uri: str) -> None:
    """Make the database that a ``sqlite:///file`` URI names, if there is none.

    MLflow itself makes one by some forty migrations, without a transaction around them: a process
    killed among them, or two processes at once, leave a database that can never be opened again.
    """
    path = Path(uri.removeprefix(SQLITE).split("?")[0])
    if not uri.startswith(SQLITE) or path.name in ("", ":memory:") or path.exists():
        return
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH as ARTIFACTS
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(prefix="modalign-") as folder:
        made = Path(folder, "mlflow.db")
        # A name of its own in every process: MLflow keeps an engine per URI.
        SqlAlchemyStore(f"{SQLITE}{made}", ARTIFACTS).engine.dispose()
        content = made.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with whole.open("wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        os.link(whole, path)  # unlike a renaming, it never replaces what another process made
    except FileExistsError:
        pass
    finally:
        whole.unlink(missing_ok=True)
