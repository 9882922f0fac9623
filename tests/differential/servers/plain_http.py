"""Python's http.server; with ``--lazy`` its handler leaves bodies unread."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from report import emit, listed, sha256, watched

LAZY = "--lazy" in sys.argv


class Handler(BaseHTTPRequestHandler):
    """Reports each request that it takes off a connection, the malformed ones too."""

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        """Report what this handler read."""
        body, kind, document = b"", None, None
        form: list[list[str]] = []
        error = None
        if not LAZY:
            body = self._body()
        media = self.headers.get_content_type()
        try:
            if body and media.endswith(("/json", "+json")):
                kind, document = "json", json.loads(body)
            elif body and media == "application/x-www-form-urlencoded":
                kind = "form"
                form = listed(parse_qsl(body.decode(), keep_blank_values=True))
        except ValueError as failure:
            error = str(failure)
        parts = urlsplit("http://service.test" + self.path)
        query = listed(parse_qsl(parts.query, keep_blank_values=True))
        emit(
            {
                "port": self.client_address[1],
                "method": self.command,
                "path": unquote(parts.path),
                "query": query,
                "headers": {n.lower(): v for n, v in self.headers.items()},
                "length": None if LAZY else len(body),
                "sha256": None if LAZY else sha256(body),
                "kind": kind,
                "json": document,
                "form": form,
                "files": [],
                "watched": watched(dict(query), dict(form), document),
                "error": error,
            }
        )
        self.send_response(400 if error else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def send_error(self, code: int, *_: object, **__: object) -> None:
        """Report what this server took for a request and could not read."""
        line = self.raw_requestline.decode("latin-1")
        emit({"port": self.client_address[1], "error": f"{code}: {line}"})
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Print nothing but reports."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    emit({"listening": server.server_address[1]})
    server.serve_forever()
