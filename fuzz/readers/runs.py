"""What a run left behind: ``metrics.jsonl`` and ``report.json``."""

from __future__ import annotations

import json
import random
from pathlib import Path

from ..documents import as_json as json_of
from ..documents import changed
from ..reader import Bench, Files

REPORT = {
    "plan": {"name": "tiny", "seed": 0, "stages": [{"name": "one", "lr": 0.1}]},
    "versions": {"modalign": "1"},
    "stages": [
        {
            "name": "one",
            "seconds": 1.5,
            "encode_seconds": 0.5,
            "trained_parameters": 10,
            "trained_encoder_parameters": 0,
            "loss": 1.0,
            "unchanged": [],
        }
    ],
    "tasks": {"retrieval:a->b": {"R@1": 0.5, "MRR": 0.6}, "zero_shot:a": {"accuracy": 0.25}},
    "primary": {"retrieval:a->b": "R@1"},
    "intervals": {"retrieval:a->b": {"R@1": [0.4, 0.6]}},
}


def metrics(scratch: Path) -> Bench:
    """The metrics of a run, as they are sent on, and as a run goes on from them."""
    from modalign import UserError
    from modalign.training.metric_log import MetricLog, read_from, read_metrics

    file = scratch / "metrics.jsonl"
    log = MetricLog(file)
    for step in range(4):
        log.append("one", step, {"loss": 1.5 / (step + 1), "nan": float("nan")})
    log.close()
    seed = {"metrics.jsonl": file.read_bytes()}
    words = ["stage", "step", "time", "metrics", "loss", "NaN", "Infinity"]
    rows = [json.loads(line) for line in seed["metrics.jsonl"].splitlines()]

    def read(files: Files, folder: Path) -> None:
        file.write_bytes(files["metrics.jsonl"])
        for record in read_metrics(file):
            assert isinstance(record["metrics"], dict)
        read_from(file, 0)
        again = MetricLog(file)
        again.append("one", 9, {"loss": 1.0})
        again.close()

    def edit(files: Files, draw: random.Random) -> Files:
        made = changed(rows, words, draw)
        lines = made if isinstance(made, list) else [made]
        return {"metrics.jsonl": b"".join(json_of(x) + b"\n" for x in lines)}

    return Bench(
        [seed], read, (UserError,), [f'"{w}"'.encode() for w in words] + [b"\n", b"{", b"}", b"null"], edit
    )


def report(scratch: Path) -> Bench:
    """Reports that are compared."""
    from modalign import UserError
    from modalign.training.compare import Compared, as_json, page, read_run, rows

    seed = {"report.json": json.dumps(REPORT).encode()}
    words = [*REPORT, "name", "seconds", "loss", "R@1", "<script>", "lr"]
    file = scratch / "report.json"
    whole = Compared("whole", REPORT)

    def read(files: Files, folder: Path) -> None:
        file.write_bytes(files["report.json"])
        runs = [*read_run(str(file)), whole]
        rows(runs)
        as_json(runs)
        assert "<script>" not in page(runs)

    def edit(files: Files, draw: random.Random) -> Files:
        return {"report.json": json_of(changed(REPORT, words, draw))}

    return Bench([seed], read, (UserError,), [f'"{w}"'.encode() for w in words], edit)
