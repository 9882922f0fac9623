"""A command that runs behind the gateway: its variables, its process, its notices."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from agentvault_tui.operator_api.access import RunInfo
from agentvault_tui.text import visible

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
_MOST_CELLS: Final = 4000
"""The length of a line on standard error: a command may have chosen its names."""


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
    number = given.get("GIT_CONFIG_COUNT", "")
    count = int(number) if number.isdecimal() else 0
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
        "AGENTVAULT_URL": info.agents_url,
        "AGENTVAULT_TOKEN_FILE": str(folder / "token"),
    }


class Startable(Protocol):
    """A command that is ready to begin."""

    def begin(self) -> subprocess.Popen[bytes]:
        """Let it begin; return the process that has its exit code.

        Raises:
            OSError: it cannot be started.
        """

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""

    def send(self, number: int) -> bool:
        """Send it a signal; return whether there was anything to send it to."""


class PlainCommand:
    """A command without namespaces of its own."""

    def __init__(
        self,
        words: Sequence[str],
        variables: Mapping[str, str],
        grouped: bool,
        restrict: Callable[[], None] | None = None,
    ) -> None:
        """Prepare it.

        Args:
            words: the command line.
            variables: its environment.
            grouped: whether it gets a process group of its own.
            restrict: called in the new process before it becomes the command.
        """
        self._words, self._variables = words, variables
        self._grouped, self._restrict = grouped, restrict
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> subprocess.Popen[bytes]:
        """Start it."""
        self._process = subprocess.Popen(
            self._words,
            env=dict(self._variables),
            process_group=0 if self._grouped else None,
            preexec_fn=self._restrict,  # noqa: PLW1509 - no thread has started yet
        )
        return self._process

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        assert self._process is not None  # noqa: S101 - it was begun
        return self._process.wait()

    def send(self, number: int) -> bool:
        """Send a signal to its process group, or to it where it has none."""
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


def say(line: str) -> None:
    """Print one line next to the command's own output."""
    # `CommandStreams` may have set our terminal to raw mode.
    end = "\r\n" if sys.stderr.isatty() else "\n"
    sys.stderr.write(f"agentvault run: {visible(line, _MOST_CELLS)}{end}")
    sys.stderr.flush()
