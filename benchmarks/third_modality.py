"""A third modality, later: ``python benchmarks/third_modality.py [--quick]``.

Two modalities are aligned first. Then a third is added to the finished space (``--from``: only its own layer
and token are trained, against one of the two), beside training all three anew together. For both: seconds,
trained parameters, and R@1 of every pair, the one never trained together too; and whether what the old two
modalities embed is still the same, bit for bit. On vectors made of one latent, and on written and spoken
digits if MODALIGN_DATA names the folder of ``digits.parquet``; there ``class_R@1``, since ten names describe
all items.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from measuring import heading, print_head, print_row

Plan = dict[str, Any]
WIDTHS = {"a": 256, "b": 128, "c": 192}


def main() -> None:
    options = arguments()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch

    torch.set_num_threads(options.threads)
    print(heading(options.threads))
    data = os.environ.get("MODALIGN_DATA")
    cases = {"vectors": (vectors(options), "R@1", ("a", "b", "c"))}
    if data and Path(data, "digits.parquet").is_file() and not options.quick:
        cases["digits"] = (digits(Path(data)), "class_R@1", ("image", "text", "audio"))
    for name, (plan, metric, modalities) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            os.environ["MODALIGN_CACHE"] = str(Path(folder, "cache"))
            if name == "vectors":
                write_vectors(options.rows)
            compare(name, plan, metric, *modalities)
            os.chdir("/")
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="vectors alone, and few of them")
    parser.add_argument("--rows", type=int, help="of vectors; default 20,000, or 2,000 with --quick")
    parser.add_argument("--epochs", type=int, default=5, help="of every stage on vectors")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.rows = options.rows or (2000 if options.quick else 20_000)
    return options


# Data ------------------------------------------------------------------------------------------


def vectors(options: argparse.Namespace) -> Plan:
    """Three views of one latent, without a stage."""
    return {
        "data": {"table": "views.parquet", "split": "split"},
        "modalities": {m: {"encoder": {"name": "identity", "width": w}} for m, w in WIDTHS.items()},
        "space": {"dim": 64, "projection": {"name": "universal", "width": 64, "heads": 4, "hidden": 128}},
        "stage": {"epochs": options.epochs, "batch_size": 128, "lr": 3e-3},
    }


def write_vectors(rows: int) -> None:
    """``views.parquet``: a quarter of the rows, at most 1,000, is for testing."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    latent = random.standard_normal((rows, 32), dtype=np.float32)
    columns: dict[str, Any] = {}
    for name, width in WIDTHS.items():
        seen = latent @ random.standard_normal((32, width), dtype=np.float32) / np.float32(32**0.5)
        seen += random.standard_normal((rows, width), dtype=np.float32)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(seen.reshape(-1)), width)
    held = min(rows // 4, 1000)
    pq.write_table(
        pa.table({**columns, "split": ["test"] * held + ["train"] * (rows - held)}), "views.parquet"
    )


def digits(folder: Path) -> Plan:
    """``examples/digits.yaml``: pictures, their names, and voices that say them; encoders learn too."""
    columns = {m: m for m in ("image", "text", "audio")}
    return {
        "data": {
            "table": str(folder / "digits.parquet"), "split": "split", "columns": columns, "label": "label"
        },
        "modalities": {
            "image": {"encoder": {"name": "small-vit", "size": 16, "patch": 4}, "trainable": True},
            "text": {"encoder": "minilm"},
            "audio": {"encoder": {"name": "logmel-cnn", "rate": 8000}, "trainable": True},
        },
        "space": {"dim": 256, "projection": {"name": "universal", "preset": "small"}},
        "stage": {"epochs": 4, "batch_size": 128, "lr": 1e-3},
    }  # fmt: skip


# Measuring -------------------------------------------------------------------------------------


def compare(name: str, plan: Plan, metric: str, first: str, second: str, third: str) -> None:
    """The table of one data set: ``first`` and ``second`` are there, ``third`` meets ``second`` alone."""
    pairs = ((first, second), (third, second), (third, first))
    # Filled once, so that no run pays for what the others use.
    run(
        {**plan, "stage": {**plan["stage"], "epochs": 1}},
        "filling",
        [[first, second], [third, second]],
        metric,
    )
    pair = run(plan, "pair", [[first, second]], metric)
    added = run(plan, "added", [[third, second]], metric, start="pair", only=third)
    joint = run(plan, "joint", [[first, second, third]], metric)
    print(f"\n{name}: {metric} of test items, averaged over both directions")
    titles = [f"{a}, {b}" for a, b in pairs]
    print_head(
        "", "seconds", "× adding", "trained parameters", "× adding", *titles, f"{first}, {second} unchanged"
    )
    rows = {f"{first} and {second}": pair, f"adding {third}": added, "all three anew": joint}
    for title, found in rows.items():
        ratios = [f"{found[key] / added[key]:.2f}" for key in ("seconds", "parameters")]
        print_row(
            title,
            f"{found['seconds']:.2f}",
            ratios[0],
            f"{found['parameters']:,}",
            ratios[1],
            *(f"{found['recall'][p]:.3f}" if p in found["recall"] else "" for p in pairs),
            {pair["name"]: "", added["name"]: same_bits(first, second)}.get(found["name"], "no"),
        )


def run(
    plan: Plan,
    name: str,
    aligned: list[list[str]],
    metric: str,
    start: str | None = None,
    only: str | None = None,
) -> dict[str, Any]:
    """One run of ``modalign.align``: the seconds of its stages, what it trained and what it reached."""
    import modalign

    plan = copy.deepcopy(plan)
    stage, there = plan.pop("stage"), sorted({m for names in aligned for m in names})
    if only is not None:  # the others, and the space's shape, are the space's
        plan["modalities"] = {only: plan["modalities"][only]}
        del plan["space"]
        there = sorted(WIDTHS) if only in WIDTHS else ["audio", "image", "text"]
    else:
        plan["modalities"] = {m: p for m, p in plan["modalities"].items() if m in there}
    plan["stages"] = [
        {"name": f"s{i}", "align": names, "losses": {"infonce": 1.0}, **stage}
        for i, names in enumerate(aligned)
    ]
    plan["tasks"] = [{"name": "retrieval", "from": a, "to": b} for a in there for b in there if a != b]
    space = modalign.align(
        {**plan, "name": name, "track": {"uri": None}}, start=start and Path("runs", start, "space")
    )
    report = json.loads(Path("runs", name, "report.json").read_text())
    reached = {
        (a, b): sum(report["tasks"][f"retrieval:{x}->{y}"][metric] for x, y in ((a, b), (b, a))) / 2
        for a in there
        for b in there
        if a != b
    }
    stages = report["stages"]
    return {
        "name": name,
        "seconds": sum(s["seconds"] for s in stages),
        "parameters": sum(s["trained_parameters"] + s["trained_encoder_parameters"] for s in stages),
        "recall": reached,
        "space": space,
    }


def same_bits(*modalities: str) -> str:
    """Whether both spaces embed the same examples of the old modalities to the same bits."""
    import modalign
    import torch

    old, new = (modalign.load(Path("runs", name, "space")) for name in ("pair", "added"))
    for m in modalities:
        batch = old.reader(m).collate(old.reader(m).example(32))
        with torch.inference_mode():
            before, after = (s.eval().project(m, s.encoder(m).eval()(batch)).vectors for s in (old, new))
        if not torch.equal(before, after):
            return "NO"
    return "yes, every bit"


if __name__ == "__main__":
    main()
