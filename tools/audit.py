"""Asks the package index which installed distributions have known vulnerabilities: ``python tools/audit.py``.

Exit status 1 if one has that ``tools/audit-ignore.txt`` does not explain. A service that cannot be asked,
or knows none of the packages, is a notice and status 0: what others run must not stop what is built here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

IGNORED = Path(__file__).with_name("audit-ignore.txt")


def ignored(text: str) -> dict[str, str]:
    """``{id: reason}`` of lines such as ``PYSEC-2024-1  only on Windows``.

    Raises:
        ValueError: if a line has no reason.
    """
    found = {}
    for line in text.splitlines():
        identity, _, reason = line.partition("#")[0].strip().partition(" ")
        if identity and not reason.strip():
            raise ValueError(f"{IGNORED.name}: {identity} has no reason")
        if identity:
            found[identity] = reason.strip()
    return found


def judge(report: dict[str, list[dict[str, object]]], reasons: dict[str, str]) -> tuple[int, str]:
    """The exit status and what to say, from pip-audit's JSON."""
    asked = [d for d in report["dependencies"] if "skip_reason" not in d]
    if not asked:
        return 0, "notice: the service knows none of the packages, so nothing was audited"
    lines, used = [], set()
    for dependency in asked:
        for found in dependency["vulns"]:  # type: ignore[attr-defined]
            names = {found["id"], *found.get("aliases", ())}
            known = sorted(names & reasons.keys())
            used |= set(known)
            if not known:
                fixed = ", ".join(found.get("fix_versions", ())) or "no version yet"
                lines.append(
                    f"{dependency['name']} {dependency['version']}: {found['id']}; mended in {fixed}"
                )
    idle = sorted(reasons.keys() - used)
    told = [f"{IGNORED.name}: {identity} is found no more; take it out" for identity in idle]
    skipped = len(report["dependencies"]) - len(asked)
    count = f"{len(asked)} packages audited, {skipped} not known to the service, {len(lines)} vulnerable"
    return int(bool(lines)), "\n".join([*lines, *told, count])


def main(arguments: list[str]) -> int:
    """Run pip-audit with further arguments of its own, and judge what it says."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "pypi", "--format", "json"]
    command += ["--progress-spinner", "off", "--skip-editable", *(arguments or ["--local"])]
    run = subprocess.run(command, capture_output=True, text=True)
    try:
        report = json.loads(run.stdout)
    except ValueError:
        reason = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"notice: the audit could not be made: {reason}")
        return 0
    status, text = judge(report, ignored(IGNORED.read_text(encoding="utf-8")))
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
