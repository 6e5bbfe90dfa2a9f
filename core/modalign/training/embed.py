"""Writes embeddings of values or of a table's column as Parquet."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modalign.space_files import load

from .embedding import local, ray_engine
from .embedding.embedder import Embedder
from .embedding.merge import merge
from .embedding.out import check_out, quarantine_of
from .embedding.parts import SPACE, PartsFolder
from .embedding.prepare import How, Prepared, What, devices, prepare
from .job import RunFailed

log = logging.getLogger("modalign")


def embed_values(
    space: str, modality: str, values: Sequence[str], out: Path, batch_size: int = 64, device: str = "auto"
) -> int:
    """One row per value: ``value``, ``embedding``. Returns their number.

    Raises:
        UserError: if the space or the modality is not there, or ``out`` cannot be written or is read.
    """
    out = check_out(out, values=values)
    vectors = load(space, devices(device)[0]).embed(modality, values, batch_size)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1).numpy()), vectors.shape[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    pq.write_table(pa.table({"value": pa.array(list(values)), "embedding": embedding}), part)
    os.replace(part, out)
    return len(vectors)


def embed_table(
    what: What, out: Path, how: How, step: Callable[[int, int], Any] = lambda done, rows: None
) -> dict[str, Any]:
    """One row per readable cell (a list cell has several): ``row``, the column carried along, ``embedding``.

    Finished parts lie in ``<out>.parts`` until all are there; what could not be read is in
    ``<out>.quarantine.csv``.

    Inputs:
        step: told how many of the table's rows are done, of how many.

    Returns what it took: ``rows``, ``unreadable``, ``seconds``, …

    Raises:
        UserError: if the space, the modality, the table, a column, a device or a cluster is not there, the
            run to go on with was another, or ``out`` cannot be written or is part of the table.
        RunFailed: if a part cannot be embedded; ``resume`` goes on.
        KeyboardInterrupt: when it was interrupted; likewise.
    """
    began = time.perf_counter()
    out = check_out(out, what.table)
    folder = PartsFolder(out)
    earlier = folder.earlier(how.resume)
    with ExitStack() as stack:
        stack.enter_context(terminable())
        ray = stack.enter_context(ray_engine.cluster(how.address)) if how.engine == "ray" else None
        stack.enter_context(terminable())  # once more: Ray has put its own handler there
        places = ray_engine.devices(ray, how.device) if ray else devices(how.device)
        workers = how.workers if ray else how.workers or len(places)
        prepared = prepare(what, how, folder.path, earlier, places[0], alone=workers == 1 and not ray)
        folder.claim(prepared.manifest, earlier)
        stack.callback(folder.release)
        parts = range(-(-prepared.job.rows // prepared.job.part_rows))
        done = folder.done(parts)
        try:
            _keep_space(prepared, folder)
            rows = sum(len(prepared.job.rows_of(part)) for part in done)
            step(rows, prepared.job.rows)
            with closing(_engine(prepared, [p for p in parts if p not in done], workers, places, ray)) as run:
                for part in run:
                    done.add(part)
                    rows += len(prepared.job.rows_of(part))
                    step(rows, prepared.job.rows)
        except BaseException as error:
            done = folder.done(parts)
            if not done:
                folder.remove()
            elif isinstance(error, KeyboardInterrupt):
                log.warning("%d of %d parts are kept: go on with --resume", len(done), len(parts))
            raise
        bad = quarantine_of(out)
        about = {**prepared.manifest, "engine": how.engine, "seconds": time.perf_counter() - began}
        cost = merge(folder.path, parts, out, bad, prepared.schema, what.modality, about)
        folder.remove()
    return cost


def _engine(
    prepared: Prepared, parts: list[int], workers: int | None, places: list[str], ray: Any
) -> Generator[int, None, None]:
    if ray is not None:
        yield from ray_engine.embed_parts(ray, prepared.job, parts, workers)
    elif prepared.embedder is not None:
        yield from _here(prepared.embedder, parts)
    else:
        yield from local.embed_parts(prepared.job, parts, max(1, min(workers or 1, len(parts))), places)


def _here(embedder: Embedder, parts: list[int]) -> Iterator[int]:
    for part in parts:
        try:
            embedder.embed(part)
        except RunFailed as error:
            raise RunFailed(local.explained(embedder.job, part, error)) from error
        yield part


def _keep_space(prepared: Prepared, folder: PartsFolder) -> None:
    """A space that came from MLflow lies among the parts, where every worker sees it."""
    if prepared.downloaded:
        kept = folder.path / SPACE
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(prepared.job.space, kept)
        prepared.job = replace(prepared.job, space=str(kept))


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends what is inside as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
