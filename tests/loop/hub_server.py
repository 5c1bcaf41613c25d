"""A hub on loopback: the endpoints that huggingface_hub's uploads use, and what they were given.

with HubServer("secret") as hub: … HF_ENDPOINT=hub.url …; hub.files["model", "me/m"]
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_LARGE = (".safetensors", ".parquet")


class HubServer:
    """The server; it runs within a ``with`` block.

    Args:
        token: the one it wants.

    Attributes:
        files: the bytes in each repository, by kind and name, and then by path.
        refuse: a status that every request is answered with; None serves.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.refuse: int | None = None
        self.stored: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        kind, name, what = self._repository()
        if not self._allowed():
            return
        files = self.hub.files[kind, name]
        if what == "tree":
            rows = [{"type": "file", "path": p, "size": len(b), "oid": ""}
                    for p, b in files.items()]  # fmt: skip
            self._send(rows)
        else:
            told = {"id": name, "sha": "0" * 40, "siblings": [{"rfilename": p} for p in files]}
            self._send(told)

    def do_PUT(self) -> None:
        data = self._body()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == oid
        self.hub.stored[oid] = data
        self._send({})

    def do_POST(self) -> None:
        data = self._body()
        if not self._allowed():
            return
        path = urllib.parse.urlsplit(self.path).path
        if path == "/api/repos/create":
            self._create(json.loads(data))
        elif path == "/api/validate-yaml":
            self._send({"errors": [], "warnings": []})
        elif path.endswith("/info/lfs/objects/batch"):
            self._send({"objects": [self._upload(o) for o in json.loads(data)["objects"]]})
        else:
            kind, name, what = self._repository()
            if what == "preupload":
                self._send({"files": [_mode(f["path"]) for f in json.loads(data)["files"]]})
            elif what == "commit":
                self._commit(kind, name, data)

    def _create(self, asked: dict[str, Any]) -> None:
        kind, name = asked["type"], f"{asked['organization'] or 'me'}/{asked['name']}"
        self.hub.files.setdefault((kind, name), {})
        self._send({"url": self._address(kind, name)})

    def _address(self, kind: str, name: str) -> str:
        return f"{self.hub.url}/{name}" if kind == "model" else f"{self.hub.url}/{kind}s/{name}"

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.hub.url}/store/{asked['oid']}"
        return asked | {"actions": {"upload": {"href": href}}}

    def _commit(self, kind: str, name: str, data: bytes) -> None:
        files = self.hub.files[kind, name]
        for line in data.splitlines():
            key, value = json.loads(line).values()
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        url = f"{self._address(kind, name)}/commit/0"
        self._send({"commitUrl": url, "commitOid": "0" * 40})

    def _repository(self) -> tuple[str, str, str]:
        """Kind, name and what is asked of it: /api/models/OWNER/NAME/WHAT/main."""
        parts = urllib.parse.urlsplit(self.path).path.split("/")
        return parts[2].removesuffix("s"), "/".join(parts[3:5]), "".join(parts[5:6])

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        status = self.hub.refuse or (None if given == f"Bearer {self.hub.token}" else 401)
        if status is not None:
            # As an ill-mannered server would: it repeats what it was given.
            self._send({"error": f"not with {given}"}, status)
        return status is None

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _mode(path: str) -> dict[str, Any]:
    mode = "lfs" if path.endswith(_LARGE) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}
