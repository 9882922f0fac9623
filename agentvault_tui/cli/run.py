"""``agentvault run``: a command behind the gateway, and the environment it gets."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.lookup import agent_option, find_agent, service_names
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import AgentVaultError, NotFoundError
from agentvault_tui.home import private_folder, put_private
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.access import RunInfo, RunNewsInfo, RunRequest
from agentvault_tui.operator_api.client import OperatorClient

GRACE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL."""
_PATIENCE: Final = 10.0
"""Seconds for which a broker may be away before the command is stopped."""
_NOT_FOUND: Final = 127
_NOT_RUNNABLE: Final = 126
_ADDED: Final = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""Trusted besides the system's authorities."""
_REPLACED: Final = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "HTTPLIB2_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "NIX_SSL_CERT_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "npm_config_cafile",
)
"""Trusted in the place of the system's authorities."""
_PROXIES: Final = (
    "grpc_proxy",
    "npm_config_proxy",
    "npm_config_https_proxy",
    "PIP_PROXY",
    "CARGO_HTTP_PROXY",
)
"""Read besides the common ones, before a proxy that the tool's own file names."""
_INHERITED: Final = re.compile(
    r"(?i)(?:[a-z]+_|npm_config_(?:https?_?)?|pip_|cargo_http_|git_)?proxy"
    r"|npm_config_(?:no_?proxy|https[-_]proxy|ca|cafile|strict_ssl)"
    r"|ssl_cert_dir|git_ssl_capath|git_ssl_no_verify|git_proxy_[a-z_]+"
    r"|node_tls_reject_unauthorized|pip_trusted_host|cloudsdk_proxy_[a-z_]+"
)
"""Variables that would lead around the proxy, or have its certificates not checked."""


@command(
    "run",
    on_home=True,
    example="agentvault run --agent coder -- curl https://api.github.com/user",
    prints_data=False,
    context_settings={"allow_interspersed_args": False},
)
@agent_option
@click.option(
    "--service",
    "services",
    metavar="NAME",
    multiple=True,
    help="A service that the command may reach; repeat it. Default: all of them.",
    shell_complete=service_names,
)
@click.option(
    "--pass-through",
    metavar="HOST",
    multiple=True,
    help="A further host, as an opaque tunnel, such as *.example.com; repeat it.",
)
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True)
@pass_session
def run(
    session: CliSession,
    ref: str,
    services: tuple[str, ...],
    pass_through: tuple[str, ...],
    words: tuple[str, ...],
) -> int:
    """Run a command as an agent: its requests to services are decided and recorded.

    The command gets the proxy and its certificate authority in environment variables,
    and no credential of a service. If the agent is revoked, the command is stopped.
    """
    client = session.client
    agent = find_agent(client, ref)
    body = RunRequest(agent_id=agent.id, services=services, pass_through=pass_through)
    info = client.call(calls.RUN, body)
    try:
        with _files(session.home.run, session.home.keys, info) as folder:
            variables = environment(os.environ, info, folder)
            code = _Command(client, info, folder, agent.name).run(words, variables)
    finally:
        last = _ended(client, info)
    if last is not None:
        _say(summary(last))
    return code


def summary(news: RunNewsInfo) -> str:
    """Word a command's calls in one line."""
    sent = f"{news.calls} call{'s' * (news.calls != 1)}"
    tunnels = f", {news.tunnels} tunnel{'s' * (news.tunnels != 1)}"
    calls_text = f"{sent}{tunnels if news.tunnels else ''}"
    return f"{calls_text}, {news.held} held, {news.refused} refused"


def environment(
    inherited: Mapping[str, str], info: RunInfo, folder: Path
) -> dict[str, str]:
    """Return the variables of a command that runs behind the gateway.

    Of those *inherited*, proxies and authorities are left out. *folder* has ``token``,
    ``ca.pem`` and ``ca-bundle.pem``.
    """
    given = {
        name: value
        for name, value in inherited.items()
        if not _INHERITED.fullmatch(name) and name not in {*_ADDED, *_REPLACED}
    }
    at = urlsplit(info.proxy_url)
    proxy = f"http://agent:{info.key}@{at.netloc}"
    # With its port: on this machine there are services too. Tools that do not compare
    # ports ask the proxy for the broker, which passes that on.
    broker = urlsplit(info.agents_url).netloc
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        given[name] = given[name.upper()] = broker if name == "no_proxy" else proxy
    git_count = given.get("GIT_CONFIG_COUNT", "")
    count = int(git_count) if git_count.isdecimal() else 0
    return given | {
        "npm_config_noproxy": broker,
        **dict.fromkeys(_PROXIES, proxy),
        **dict.fromkeys(_ADDED, str(folder / "ca.pem")),
        **dict.fromkeys(_REPLACED, str(folder / "ca-bundle.pem")),
        "NODE_USE_ENV_PROXY": "1",
        "GIT_CONFIG_COUNT": str(count + 2),
        f"GIT_CONFIG_KEY_{count}": "http.proxy",
        f"GIT_CONFIG_VALUE_{count}": proxy,
        # Otherwise git asks a credential helper for the proxy's password.
        f"GIT_CONFIG_KEY_{count + 1}": "http.proxyAuthMethod",
        f"GIT_CONFIG_VALUE_{count + 1}": "basic",
        "CLOUDSDK_PROXY_TYPE": "http",
        "CLOUDSDK_PROXY_ADDRESS": at.hostname or "",
        "CLOUDSDK_PROXY_PORT": str(at.port),
        "CLOUDSDK_PROXY_USERNAME": "agent",
        "CLOUDSDK_PROXY_PASSWORD": info.key,
        **{
            f"{name.upper().replace('-', '_')}_BASE_URL": url
            for name, url in info.services.items()
        },
        "AGENTVAULT_TOKEN_FILE": str(folder / "token"),
    }


class _Command:
    """The command while it runs, and who watches whether it may go on."""

    def __init__(
        self, client: OperatorClient, info: RunInfo, folder: Path, agent: str
    ) -> None:
        self._client = client
        self._info = info
        self._folder = folder
        self._agent = agent
        self._process: subprocess.Popen[bytes] | None = None
        # At a terminal it stays in our process group, so that the terminal is its own.
        self._grouped = not sys.stdin.isatty()
        self._stopped = threading.Event()

    def run(self, words: tuple[str, ...], variables: Mapping[str, str]) -> int:
        """Run it; return its exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._process = process = subprocess.Popen(
                words, env=dict(variables), process_group=0 if self._grouped else None
            )
        except FileNotFoundError:
            _say(f"{words[0]}: no such command")
            return _NOT_FOUND
        except OSError as error:
            _say(f"{words[0]}: {error.strerror}")
            return _NOT_RUNNABLE
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()
        code = process.wait()
        if self._stopped.is_set():
            self._sweep()
        return 128 - code if code < 0 else code

    def _on_signal(self, number: int, _: object) -> None:
        """Pass a signal on; a terminal's own reached the command already."""
        if self._grouped or number != signal.SIGINT:
            self._send(number)

    def _send(self, number: int) -> bool:
        process = self._process
        if process is None:
            return False
        with suppress(ProcessLookupError, PermissionError):
            if self._grouped:
                os.killpg(process.pid, number)
            elif process.poll() is None:
                process.send_signal(number)
            return True
        return False

    def _sweep(self) -> None:
        """End the rest of a stopped command's process group."""
        ends = time.monotonic() + GRACE
        while self._grouped and self._send(0) and time.monotonic() < ends:
            time.sleep(0.05)
        if self._grouped:
            self._send(signal.SIGKILL)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Renew the token, until the run or the command ends."""
        away_since: float | None = None
        while process.poll() is None:
            try:
                news = self._client.call(calls.RUN_NEWS, id=self._info.id)
            except NotFoundError:
                return self._stop("its broker knows nothing of it any more")
            except AgentVaultError as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > _PATIENCE:
                    return self._stop(error.what)
                time.sleep(0.5)
                continue
            away_since = None
            if news.access_token is not None:
                write_token(self._folder, news.access_token)
            if news.ended == "done":
                break
            if news.ended is not None:
                return self._stop(news.why)
        return None

    def _stop(self, why: str) -> None:
        """Stop the command: SIGTERM, and 5 s later SIGKILL."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        _say(f"{self._agent} is stopped: {why}")
        self._stopped.set()
        self._send(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            return
        self._send(signal.SIGKILL)


@contextmanager
def _files(run: Path, keys: Path, info: RunInfo) -> Iterator[Path]:
    """Write a command's files, 0600 in a separate folder; remove it at the end."""
    private_folder(run)
    with tempfile.TemporaryDirectory(prefix="run-", dir=run) as name:
        folder = Path(name)
        ours = [info.ca.encode()]
        local = keys / "tls-ca.pem"
        if info.agents_url.startswith("https:") and local.exists():
            ours.append(local.read_bytes())
        put_private(folder / "ca.pem", b"".join(ours), replace=True)
        whole = b"\n".join([*ours, *_system_roots()])
        put_private(folder / "ca-bundle.pem", whole, replace=True)
        write_token(folder, info.access_token)
        yield folder


def write_token(folder: Path, token: str) -> None:
    """Put the token in the place of the one before, whole or not at all."""
    put_private(folder / "token", token.encode(), replace=True)


def _system_roots() -> Iterable[bytes]:
    """Yield the system's authorities as PEM, wherever the environment has others."""
    paths = ssl.get_default_verify_paths()
    file, folder = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    if file.is_file():
        yield file.read_bytes()
        return
    roots = sorted(folder.glob("*.[0-9]")) if folder.is_dir() else []
    if not roots:
        import certifi

        roots = [Path(certifi.where())]
    for one in roots:
        with suppress(OSError):
            yield one.read_bytes()


def _ended(client: OperatorClient, info: RunInfo) -> RunNewsInfo | None:
    """Notify the broker that the command has ended; return its calls."""
    with suppress(AgentVaultError):
        return client.call(calls.END_RUN, id=info.id)
    return None


def _say(line: str) -> None:
    """Print one line next to the command's own output."""
    sys.stderr.write(f"agentvault run: {line}\n")
    sys.stderr.flush()
