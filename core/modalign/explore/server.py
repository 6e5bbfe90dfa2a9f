"""The page and its answers over HTTP, for browsers on this machine only."""

from __future__ import annotations

import json
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from modalign.errors import UserError

from .answers import Explorer

PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
LARGEST = 64 * 2**20
"""Bytes of a query."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "media-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
SHOWN = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""The policy of a preview: nothing in it runs, even if somebody opens it alone."""


class Server(ThreadingHTTPServer):
    """Says nothing about browsers that leave early."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def serve(explorer: Explorer, port: int = 0) -> Server:
    """A server on 127.0.0.1, bound and not yet serving; port 0 takes a free one.

    Raises:
        OSError: if the port is taken.
    """
    return Server(("127.0.0.1", port), partial(Handler, explorer))


class Handler(BaseHTTPRequestHandler):
    """Answers a browser whose page came from here.

    A page of another site reaches 127.0.0.1 too, by that address or by a name of its own that it lets
    point here (DNS rebinding). So the Host must be ours, an Origin must be ours, and a query must be JSON,
    which no other site may send unasked.
    """

    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, explorer: Explorer, *arguments: Any) -> None:
        self.explorer = explorer
        super().__init__(*arguments)

    def log_message(self, *_: Any) -> None:
        pass

    def version_string(self) -> str:
        return "modalign"

    def do_GET(self) -> None:
        if not self._ours():
            return
        if self.path in PAGE:
            file, kind = PAGE[self.path]
            self._send(200, kind, (Path(__file__).parent / file).read_bytes())
        elif self.path == "/about":
            self._answer(self.explorer.about)
        elif (
            self.path.startswith("/items/")
            and self.path[7:].isdecimal()
            and self.path.isascii()
            and len(self.path) < 20
        ):
            self._preview(int(self.path[7:]))
        else:
            self._send(404, "text/plain", b"there is nothing here")

    def do_POST(self) -> None:
        if not self._ours():
            return
        length = self.headers.get("Content-Length", "")
        if self.path != "/search" or self.headers.get_content_type() != "application/json":
            self._refuse(404, "POST /search takes JSON")
        elif not length.isdecimal() or int(length) > LARGEST:
            self._refuse(413, f"a query has up to {LARGEST} bytes, and says how many")
        else:
            body = self.rfile.read(int(length))
            self._answer(lambda: self.explorer.search(_json(body)))

    def _ours(self) -> bool:
        port = self.server.server_port  # type: ignore[attr-defined]
        hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        origin = self.headers.get("Origin")
        if self.headers.get_all("Host", []) not in [[host] for host in hosts]:
            self._refuse(403, "this page is only for browsers on this machine")
        elif origin is not None and origin not in {f"http://{host}" for host in hosts}:
            self._refuse(403, "another site's page asked")
        else:
            return True
        return False

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True  # whatever the body is, it is not read
        self._send(status, "text/plain", why.encode())

    def _answer(self, make: Any) -> None:
        try:
            status, found = 200, make()
        except UserError as error:
            status, found = 400, {"error": str(error)}
        except Exception as error:  # a plugin's mistake ends one answer, not the page
            status, found = 500, {"error": f"{type(error).__name__}: {error}"}
        self._send(status, "application/json", json.dumps(found).encode())

    def _preview(self, number: int) -> None:
        try:
            found = self.explorer.preview(number)
        except UserError as error:
            self._send(404, "text/plain", str(error).encode("utf-8", "replace"))
        except Exception as error:
            self._send(500, "text/plain", f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
        else:
            kind, content = found or ("", b"")
            self._send(200 if found else 204, kind, content, SHOWN)

    def _send(self, status: int, kind: str, content: bytes, policy: str = POLICY) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UserError("the query is not JSON") from None
