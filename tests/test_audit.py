"""The audit of dependencies: what it makes of the answers of a vulnerability service."""

from __future__ import annotations

import http.server
import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[1] / "tools" / "audit.py"
spec = importlib.util.spec_from_file_location("audit", FILE)
assert spec is not None
assert spec.loader is not None
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

FOUND: dict[str, Any] = {
    "dependencies": [
        {"name": "jinja2", "version": "2.10", "vulns": [
            {"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"], "aliases": ["CVE-2019-10906"], "description": "sandbox escape"}]},
        {"name": "numpy", "version": "2.0.0", "vulns": []},
        {"name": "modalign", "skip_reason": "distribution marked as editable"},
    ]
}  # fmt: skip
OSV = {"vulns": [{
    "id": "PYSEC-2019-217", "aliases": ["CVE-2019-10906"], "details": "sandbox escape", "modified": "2024-01-01T00:00:00Z",
    "published": "2019-04-07T00:29:00Z",
    "affected": [{"package": {"name": "jinja2", "ecosystem": "PyPI"}, "versions": ["2.10"],
                  "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.10.1"}]}]}],
}]}  # fmt: skip


def test_a_vulnerability_fails_and_an_explained_one_does_not() -> None:
    status, text = audit.judge(FOUND, {})
    assert status == 1
    assert "jinja2 2.10: PYSEC-2019-217; mended in 2.10.1" in text
    assert audit.judge(FOUND, {"CVE-2019-10906": "we render nothing"})[0] == 0
    assert "take it out" in audit.judge(FOUND, {"CVE-1": "gone"})[1]


def test_a_service_that_knows_nothing_has_audited_nothing() -> None:
    skipped = {"dependencies": [{"name": "jinja2", "skip_reason": "Dependency not found"}]}
    status, text = audit.judge(skipped, {})
    assert status == 0
    assert "nothing was audited" in text


def test_every_ignored_one_has_a_reason() -> None:
    audit.ignored(audit.IGNORED.read_text())
    assert audit.ignored("# all\nCVE-1  only on Windows # x\n\n") == {"CVE-1": "only on Windows"}
    with pytest.raises(ValueError, match="CVE-2 has no reason"):
        audit.ignored("CVE-2\n")


class _Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(OSV).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("there", "status", "says"), [(True, 1, "PYSEC-2019-217"), (False, 0, "notice: the audit could not")]
)
def test_pip_audit_asks_a_service(there: bool, status: int, says: str, tmp_path: Path) -> None:
    pytest.importorskip("pip_audit")
    (tmp_path / "r.txt").write_text("jinja2==2.10\n")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    url = f"http://127.0.0.1:{server.server_port}/v1/query"
    if there:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    else:
        server.server_close()
    service = ["-s", "osv", "--osv-url", url, "-r", str(tmp_path / "r.txt"), "--no-deps", "--disable-pip"]
    run = subprocess.run(
        [sys.executable, str(FILE), *service], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    server.shutdown() if there else None
    assert run.returncode == status, run.stdout + run.stderr
    assert says in run.stdout
