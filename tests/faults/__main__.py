"""`python -m tests.faults`: run the fault suite, say what held, write the page."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from .bench import Bench
from .judge import Verdict, judge
from .machine import lacks
from .page import page
from .suite import SUITE


def main() -> int:
    """The number of promises that were not kept, at most 1; known defects do not count."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Run the fault suite.")
    parser.add_argument("-k", metavar="PATTERN", help="only cases whose kind or name matches")
    parser.add_argument("--write", metavar="FILE", type=Path, help="write the page there")
    parser.add_argument(
        "--log", metavar="FILE", type=Path, help="keep what happened; what it holds is not done again"
    )
    parser.add_argument("--list", action="store_true", help="only list the cases")
    asked = parser.parse_args()
    chosen = [c for c in SUITE if asked.k is None or re.search(asked.k, str(c))]
    if asked.list:
        for case in chosen:
            print(f"{case} ({case.when})")
        return 0
    home = Path(tempfile.mkdtemp(prefix="faults-"))
    home.chmod(0o755)
    references = home / "references"
    references.mkdir()
    known = read_log(asked.log)
    verdicts: list[tuple] = []
    wrong = 0
    begun = time.monotonic()
    for case in chosen:
        if str(case) in known:
            verdicts.append((case, known[str(case)]))
            continue
        reason = lacks(case.needs)
        if reason:
            verdicts.append((case, reason))
            print(f"  skipped  {case}: {reason}", flush=True)
            continue
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=home))
        started = time.monotonic()
        verdict: Verdict = judge(case, Bench(folder, references))
        verdicts.append((case, verdict))
        surprising = bool(verdict.broken) != bool(case.defect)
        wrong += surprising
        word = (
            ("BROKEN" if verdict.broken else "MENDED") if surprising else ("known" if case.defect else "kept")
        )
        print(f"{time.monotonic() - started:5.1f} s {word:7} {case}", flush=True)
        if verdict.broken:
            print(f"          {verdict.broken[:2000]}", flush=True)
        elif asked.log:
            with asked.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"case": str(case), "verdict": asdict(verdict)}) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    print(f"{len(verdicts)} faults, {wrong} surprises, {time.monotonic() - begun:.0f} s")
    if asked.write:
        asked.write.write_text(page(verdicts), encoding="utf-8")
    return min(wrong, 1)


def read_log(file: Path | None) -> dict[str, Verdict]:
    """Verdicts by case; only of promises that were kept."""
    if file is None or not file.is_file():
        return {}
    records = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {record["case"]: Verdict(**record["verdict"]) for record in records}


if __name__ == "__main__":
    sys.exit(main())
