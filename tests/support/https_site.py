"""A site of HTTPS that wants a credential: a repository, packages, an API."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import ssl
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentvault_tui.home import Home
from agentvault_tui.web.local_ca import CaFiles, renew

SECRET = "ghp_51HqLyjWDarjtT1zdp7dc"


@dataclass
class Site:
    """What is served, and who asked without the credential."""

    port: int
    ca: Path
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, bool, dict[str, str]]] = field(default_factory=list)
    """Path, whether the credential was there, and the headers."""

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        """Answer a file to who has the credential."""
        path = self.path.partition("?")[0]
        known = self.headers.get("Authorization") == f"Bearer {SECRET}"
        self.site.asked.append((path, known, dict(self.headers.items())))
        found = self.site.files.get(path)
        status = 401 if not known else 404 if found is None else 200
        body = found if status == 200 and found is not None else b"no"
        self.send_response(status)
        kind = "text/html" if path.endswith("/") else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def https_site(folder: Path) -> Iterator[Site]:
    """Serve a site called ``localhost`` on a free port."""
    home = Home.locate(folder / "site")
    home.prepare()
    renew(home, now=datetime.now(UTC))
    files = CaFiles.of(home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.leaf.cert, files.leaf.key)
    handler = type("Handler", (_Handler,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        site = Site(server.server_address[1], files.ca)
        handler.site = site  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def add_repository(site: Site, folder: Path) -> None:
    """Put a git repository at ``/repo.git``, to be cloned by plain GETs."""
    work, bare = folder / "work", folder / "repo.git"
    work.mkdir()
    (work / "README").write_text("hello\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.test")
    for line in (
        ("git", "init", "-q", str(work)),
        ("git", "-C", str(work), "add", "README"),
        ("git", *who, "-C", str(work), "commit", "-qm", "first"),
        ("git", "clone", "-q", "--bare", str(work), str(bare)),
        ("git", "-C", str(bare), "update-server-info"),
    ):
        subprocess.run(line, check=True, capture_output=True)
    for path in bare.rglob("*"):
        if path.is_file():
            site.files[f"/repo.git/{path.relative_to(bare)}"] = path.read_bytes()


def add_python_package(site: Site) -> None:
    """Put the wheel of a package called ``tiny`` at ``/simple/``."""
    buffer = io.BytesIO()
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("tiny.py", "VALUE = 1\n")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    name = "tiny-1.0-py3-none-any.whl"
    site.files["/simple/tiny/"] = (
        f'<!DOCTYPE html><a href="/files/{name}">{name}</a>'.encode()
    )
    site.files[f"/files/{name}"] = buffer.getvalue()


def add_node_package(site: Site) -> None:
    """Put a package called ``tiny`` at ``/npm/``."""
    buffer = io.BytesIO()
    content = json.dumps({"name": "tiny", "version": "1.0.0"}).encode()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(content)
        packed.addfile(entry, io.BytesIO(content))
    data = buffer.getvalue()
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    version = {
        "name": "tiny",
        "version": "1.0.0",
        "dist": {
            "tarball": f"{site.url}/npm/tiny/-/tiny-1.0.0.tgz",
            "integrity": f"sha512-{digest}",
        },
    }
    about = {
        "name": "tiny",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": version},
    }
    site.files["/npm/tiny"] = json.dumps(about).encode()
    site.files["/npm/tiny/-/tiny-1.0.0.tgz"] = data
