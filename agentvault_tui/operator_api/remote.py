"""A broker on another machine: TLS 1.3, and a DPoP proof for each request (RFC 9449).

A session's key and token are in the operating system's keyring. Where there is none, a
process holds them in memory (`operator_api.holder`); never a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import secrets
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from agentvault_tui.encoder import to_base64url
from agentvault_tui.errors import (
    NotFoundError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from agentvault_tui.home import private_folder
from agentvault_tui.operator_api.holder import DROP, GET, LONGEST
from agentvault_tui.origins import HttpsOrigin
from agentvault_tui.text import visible

if TYPE_CHECKING:
    from collections.abc import Generator

    import httpx
    from joserfc.jwk import ECKey

_SERVICE: Final = "agentvault operator"
_LONGEST_HELD: Final = 8 * 3600
"""Seconds that a process holds a session at most."""
_PATIENCE: Final = 5.0


class BoundSession:
    """The key of a sign-in, and the token that is good with it."""

    def __init__(self, key: ECKey, token: str = "") -> None:
        """Store both; without a token the session has not begun."""
        self._key = key
        self.token = token

    @classmethod
    def new(cls) -> Self:
        """Make a key for one sign-in."""
        from joserfc.jwk import ECKey  # noqa: PLC0415 - needed elsewhere alone

        return cls(ECKey.generate_key("P-256"))

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the form that `text` writes."""
        from joserfc.jwk import ECKey  # noqa: PLC0415 - as above

        session = json.loads(text)
        return cls(ECKey.import_key(session["key"]), session["token"])

    def text(self) -> str:
        """Return key and token, to be stored."""
        key = self._key.as_dict(private=True)
        return json.dumps({"key": key, "token": self.token})

    def headers(self, method: str, url: str, nonce: str) -> dict[str, str]:
        """Return the headers that prove a request to *url* (RFC 9449 section 4.2)."""
        from joserfc import jwt  # noqa: PLC0415 - as above

        claims = {
            "htm": method,
            "htu": url,
            "iat": int(time.time()),
            "jti": secrets.token_urlsafe(16),
        }
        if nonce:
            claims["nonce"] = nonce
        headers = {}
        if self.token:
            digest = hashlib.sha256(self.token.encode()).digest()
            claims["ath"] = to_base64url(digest)
            headers["Authorization"] = f"DPoP {self.token}"
        jwk = self._key.as_dict(private=False)
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}
        return {"DPoP": jwt.encode(header, claims, self._key), **headers}


class RemoteBroker:
    """One broker elsewhere, by the URL that its `operators.url` names."""

    def __init__(self, url: str, ca_file: str = "") -> None:
        """Trust the system's authorities for it, or those of *ca_file* alone.

        Raises:
            SettingsError: *url* is not an https origin, or *ca_file* is no PEM.
        """
        try:
            origin = HttpsOrigin.parse(url)
        except ValueError:
            raise SettingsError(
                f"{visible(url, 80)} names no broker elsewhere",
                "write https://HOST:PORT, as operators.url of the broker does",
            ) from None
        self.url, (self._host, self._port) = str(origin), origin
        self._nonce = ""
        self._session: BoundSession | None = None
        self.tls = _context(ca_file)

    def __str__(self) -> str:
        return self.url

    def connection(self, timeout: float | None) -> http.client.HTTPSConnection:
        """Return a connection to it that is not open yet."""
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout, context=self.tls
        )

    def headers(self, method: str, path: str) -> dict[str, str]:
        """Return the headers that prove a request.

        Raises:
            RefusedError: no person has signed in.
        """
        if self._session is None:
            self._session = _stored_session(self.url)
        path = path.partition("?")[0]
        return self._session.headers(method, self.url + path, self._nonce)

    def auth(self) -> httpx.Auth:
        """Return the proof for the requests of an httpx client."""
        import httpx  # noqa: PLC0415 - loaded with the first call of a console

        broker = self

        class Dpop(httpx.Auth):
            """Adds the proof, and once more where another nonce is asked for."""

            def auth_flow(
                self, request: httpx.Request
            ) -> Generator[httpx.Request, httpx.Response, None]:
                for _ in range(2):
                    path = request.url.raw_path.decode()
                    request.headers.update(broker.headers(request.method, path))
                    answer = yield request
                    if not broker.renews(answer.status_code, answer.headers):
                        return

        return Dpop()

    def renews(
        self, status: int, headers: Mapping[str, str] | http.client.HTTPMessage
    ) -> bool:
        """Note the nonce of an answer; return whether to repeat the request."""
        self._nonce = headers.get("DPoP-Nonce") or self._nonce
        challenge = headers.get("WWW-Authenticate") or ""
        if status != http.client.UNAUTHORIZED:
            return False
        if 'error="invalid_token"' in challenge:
            self._lost()
        return 'error="use_dpop_nonce"' in challenge

    def begin(self) -> None:
        """Make a key for a new sign-in; the stored session stays until `keep`.

        Raises:
            SettingsError: there would be no place to store the session.
        """
        from agentvault_tui import keyrings  # noqa: PLC0415 - it is slow to load

        if not keyrings.sealed():
            _holder_socket(self.url)
        self._session = BoundSession.new()

    def begun(self, token: str) -> None:
        """Sign requests with the *token* that was given for the key."""
        assert self._session is not None  # noqa: S101 - `begin` came before
        self._session.token = token

    def keep(self, seconds: float) -> None:
        """Store the session for other commands.

        Args:
            seconds: how long it lasts.

        Raises:
            AgentVaultError: the keyring does not open, or no process starts.
        """
        from agentvault_tui import keyrings  # noqa: PLC0415 - it is slow to load

        assert self._session is not None  # noqa: S101 - it is what signed this in
        text = self._session.text()
        self.forget()
        if keyrings.sealed():
            keyrings.keep(_SERVICE, self.url, text)
        else:
            _hold(self.url, text.encode(), min(seconds, _LONGEST_HELD))

    def forget(self) -> None:
        """Delete the session, wherever it is stored."""
        from agentvault_tui import keyrings  # noqa: PLC0415 - it is slow to load

        _ask_holder(self.url, DROP)
        keyrings.forget(_SERVICE, self.url)

    def _lost(self) -> None:
        """Let go of a session that is over, unless another has begun meanwhile."""
        used, self._session = self._session, None
        session = _find(self.url)
        if used and session and session.token == used.token:
            with contextlib.suppress(NotFoundError):  # a keyring that was locked since
                self.forget()


BrokerAddress = Path | RemoteBroker
"""Where a broker is reached: its socket, or from elsewhere."""


def _stored_session(url: str) -> BoundSession:
    session = _find(url)
    if session is None:
        raise RefusedError(
            f"you are not signed in at {url}", f"agentvault --connect {url} login"
        )
    return session


def _find(url: str) -> BoundSession | None:
    """Return the stored session; a foreign one counts as none."""
    from joserfc.errors import JoseError  # noqa: PLC0415 - needed elsewhere alone

    from agentvault_tui import keyrings  # noqa: PLC0415 - it is slow to load

    try:
        held = _ask_holder(url, GET).decode() or keyrings.read(_SERVICE, url)
        return BoundSession.read(held) if held else None
    except (JoseError, ValueError, LookupError, TypeError):
        return None


def _ask_holder(url: str, word: bytes) -> bytes:
    """Ask the process that holds the session at *url*; nothing where there is none."""
    try:
        path = _holder_socket(url)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(path))
            connection.sendall(word)
            answer = b""
            while part := connection.recv(LONGEST):
                answer += part
    except (OSError, SettingsError):
        return b""
    return answer


def _hold(url: str, secret: bytes, seconds: float) -> None:
    """Start a process that holds *secret*."""
    path = _holder_socket(url)
    private_folder(path.parent)
    path.unlink(missing_ok=True)
    # -P: a json.py in the folder we were started from must not be imported.
    module = (sys.executable, "-E", "-P", "-m", "agentvault_tui.operator_api.holder")
    process = subprocess.Popen(
        [*module, str(path), f"{seconds:.0f}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    # Its own child, which is nobody's, closes the pipe once it holds the secret.
    output, _ = process.communicate(secret)
    if output != b"ready\n":
        raise UnreachableError("no process could be started to hold the session")


def _holder_socket(url: str) -> Path:
    """Return where a process listens that holds the session at *url*.

    Raises:
        SettingsError: there is no folder for it that is this user's alone.
    """
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    try:
        status = folder.stat()
    except OSError:
        status = None
    if (
        status is None
        or status.st_uid != os.geteuid()
        or stat.S_IMODE(status.st_mode) & 0o077
    ):
        raise SettingsError(
            "there is no keyring here, and XDG_RUNTIME_DIR names no folder of yours",
            "unlock a keyring, or set it to a folder in memory with mode 0700",
        )
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return folder / "agentvault" / f"session-{name}.sock"


def _context(ca_file: str) -> ssl.SSLContext:
    # Not create_default_context: that one logs session keys where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    if not ca_file:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"{visible(ca_file, 200)} holds no certificates of authorities",
            "name a PEM file with --ca-file",
        ) from error
    return context
