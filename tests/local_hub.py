"""A model hub on this machine: those endpoints that its client needs to push and pull a repository."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class LocalHub:
    """Keeps the files of each repository's only branch; a context manager.

    Small files come inside the commit, large ones (``*.safetensors``) by the LFS protocol.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.uploaded: dict[str, bytes] = {}
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit(self, repo: str) -> str:
        """The branch's commit: a digest of what it holds."""
        held = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in self.files[repo].items())
        return hashlib.sha1(json.dumps(held).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(?:revision|tree)/([^/]+))?", path):
            repo = found[1]
            if repo in self.hub.files:
                named = [{"rfilename": name} for name in self.hub.files[repo]]
                tree = [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(content),
                        "oid": hashlib.sha1(content).hexdigest(),
                    }
                    for name, content in self.hub.files[repo].items()
                ]
                about = {"id": repo, "sha": self.hub.commit(repo), "private": False, "siblings": named}
                return self.answer(tree if "/tree/" in path else {**about, "tags": [], "downloads": 0})
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, _, name = found.groups()
            content = self.hub.files.get(repo, {}).get(name)
            if content is not None:
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                return self.answer(content, ETag=etag, X_Repo_Commit=self.hub.commit(repo))
            if repo in self.hub.files:
                return self.answer({}, 404, X_Error_Code="EntryNotFound")
        return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        content = self.body()
        self.hub.uploaded[hashlib.sha256(content).hexdigest()] = content
        self.answer({})

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self.body()
        self.hub.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != "Bearer hf_local":
            return self.answer({"error": "log in"}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if repo in self.hub.files:
                return self.answer({"error": "it exists", "url": f"{self.hub.url}/{repo}"}, 409)
            self.hub.files[repo] = {}
            return self.answer({"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False, "oid": None}
                for f in files
            ]  # fmt: skip
            return self.answer({"files": modes})
        if re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            objects = [
                {
                    **each,
                    "actions": {"upload": {"href": f"{self.hub.url}/upload/{each['oid']}", "header": {}}},
                }
                for each in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            repo = found[1]
            for line in body.splitlines():
                told = json.loads(line)
                value = told["value"]
                if told["key"] == "file":
                    self.hub.files[repo][value["path"]] = base64.b64decode(value["content"])
                elif told["key"] == "lfsFile":
                    self.hub.files[repo][value["path"]] = self.hub.uploaded[value["oid"]]
            oid = self.hub.commit(repo)
            url = f"{self.hub.url}/{repo}/commit/{oid}"
            return self.answer({"commitOid": oid, "commitUrl": url, "commitMessage": "", "success": True})
        return self.answer({"error": f"no such endpoint: {path}"}, 404)
