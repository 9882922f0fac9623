"""How a message leaves for each kind of sink that people read.

Addresses are checked and pinned, no redirect is followed, an answer's body is read no
further than is needed to use the connection again, and all of it has a deadline.
"""

from __future__ import annotations

import asyncio
import html
import re
import smtplib
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final
from urllib.parse import SplitResult

from agentvault_tui.broker.secret_uses import OpenSecret
from agentvault_tui.clock import Clock, iso
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.watch.config import SinkTable, origin_of, parse_url, smtp_port
from agentvault_tui.watch.messages import AlertMessage
from agentvault_tui.web.reach import connected_to, service_connection, trust
from agentvault_tui.web.service_connection import (
    Bounds,
    ServiceConnection,
    UpstreamError,
)
from agentvault_tui.web.webhooks import webhook_headers

SECONDS: Final = 10.0
"""The longest try: it delays the next alerts at the same sink."""
_BOUNDS: Final = Bounds(
    connect=SECONDS, idle=SECONDS, whole=SECONDS, answer_bytes=65_536
)
_KEPT_SECONDS: Final = 4.0
_LONGEST_WAIT: Final = 3600.0
"""The longest pause by a sink's ``Retry-After``."""
_SLACK_TEXT: Final = 2_900
_SLACK_BLOCKS: Final = 40
_NTFY_BYTES: Final = 4_000
_JSON: Final = ("Content-Type", "application/json")


class SinkError(Exception):
    """A sink did not take an alert; the text holds no secret and no address."""

    def __init__(self, text: str, wait: float = 0.0, *, content: bool = False) -> None:
        """Say why.

        Args:
            text: why.
            wait: seconds that the sink asks to be left alone.
            content: whether the sink may take less, or something else: 413 and 400
                (RFC 9110 sections 15.5.14 and 15.5.1).
        """
        super().__init__(text)
        self.wait = wait
        self.content = content


class Outlet:
    """One sink, as it is reached."""

    def __init__(self, sink: SinkTable, secret: OpenSecret, clock: Clock) -> None:
        self.sink = sink
        self.clock = clock
        self._secret = secret

    def reveal(self, name: str) -> str:
        """Return a sealed secret, right before it is sent.

        Raises:
            SinkError: there is none of that name, it does not open, or this sink is
                not where it may be sent.
        """
        origin = origin_of(self.sink)
        try:
            return self._secret(name, None if origin is None else [origin]).reveal()
        except AgentVaultError as error:
            raise SinkError(error.diagnosis()) from error

    def secret_problem(self) -> str | None:
        """Return why a secret that it is reached with cannot be sent, if so."""
        try:
            for name in self.sink.secrets:
                self.reveal(name)
        except SinkError as error:
            return str(error)
        return None

    async def aclose(self) -> None:
        """Close the open connection."""


class Sender(Outlet, ABC):
    """Sends messages to one sink, one after another."""

    @abstractmethod
    async def send(self, message: AlertMessage) -> None:
        """Send one message.

        Raises:
            SinkError: it did not arrive, or that is not known.
        """


class HttpOutlet(Outlet):
    """A sink that takes POST requests, over one reused connection."""

    _trust: ssl.SSLContext | None = None
    _connection: ServiceConnection | None = None
    _origin = ("", "")
    """Scheme and authority that the connection goes to."""

    async def post(
        self, url: str, headers: Sequence[tuple[str, str]], body: bytes
    ) -> None:
        """Post once; any answer but 2xx is a failure.

        *url* is judged here, since it may be a secret; *headers* are all but ``Host``
        and the body's length.

        Raises:
            SinkError: it was not taken, or that is not known.
        """
        try:
            parts = parse_url(url, private=self.sink.allow_private)
            async with asyncio.timeout(SECONDS):
                await self._exchange(parts, headers, body)
        except AgentVaultError:
            raise SinkError("its URL cannot be used: look at the secret") from None
        except TimeoutError:
            raise SinkError("it did not answer in time") from None
        except UpstreamError as error:
            raise SinkError(error.text.replace("the service", "the sink")) from None
        except OSError as error:
            tls = isinstance(error, ssl.SSLError)
            what = "TLS with it failed" if tls else "it cannot be reached"
            raise SinkError(what) from None

    async def _exchange(
        self, parts: SplitResult, headers: Sequence[tuple[str, str]], body: bytes
    ) -> None:
        connection = await self._connected(parts)
        try:
            connection.begin("POST")
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.send(target, [("Host", parts.netloc), *headers], body, None)
            await connection.answered()
            status, reply_headers = connection.status, dict(connection.headers)
            with suppress(UpstreamError):  # the head has answered
                while await connection.read():
                    pass
        finally:
            if not connection.reusable:
                connection.abort()
        connection.idle_since = asyncio.get_running_loop().time()
        if not 200 <= status < 300:
            waits = [
                v for name, v in reply_headers.items() if name.lower() == b"retry-after"
            ]
            wait = self._seconds(waits[-1].decode("latin-1")) if waits else 0.0
            refused = f"it answered {status}"
            raise SinkError(refused, wait, content=status in {400, 413})

    def _seconds(self, value: str) -> float:
        """Read ``Retry-After`` (RFC 9110 section 10.2.3)."""
        seconds = 0.0
        if re.fullmatch("[0-9]{1,9}", value):
            seconds = float(value)
        else:
            with suppress(ValueError, TypeError, OverflowError):
                at = parsedate_to_datetime(value)
                at = at if at.tzinfo else at.replace(tzinfo=UTC)
                seconds = (at - self.clock.now()).total_seconds()
        return min(max(seconds, 0.0), _LONGEST_WAIT)

    async def _connected(self, parts: SplitResult) -> ServiceConnection:
        origin, connection = (parts.scheme, parts.netloc), self._connection
        if connection is not None:
            idle = asyncio.get_running_loop().time() - connection.idle_since
            if connection.reusable and origin == self._origin and idle < _KEPT_SECONDS:
                return connection
            connection.abort()
            self._connection = None
        secure = parts.scheme == "https"
        if secure and self._trust is None:
            self._trust = trust(self.sink.authorities)
        self._origin = origin
        self._connection = await service_connection(
            parts.hostname or "",
            parts.port or (443 if secure else 80),
            private=self.sink.allow_private,
            tls=self._trust if secure else None,
            bounds=_BOUNDS,
        )
        return self._connection

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.abort()


class SlackSender(HttpOutlet, Sender):
    """An incoming webhook of Slack: blocks of plain text, in which it reads nothing."""

    async def send(self, message: AlertMessage) -> None:
        """Post one message."""
        blocks: list[dict[str, object]] = [
            {"type": "header", "text": _plain(message.title[:150])}
        ]
        lines = message.text.splitlines()[1:]
        lines = lines[: len(lines) - bool(message.page)]
        blocks += [
            {"type": "section", "text": _plain(part)}
            for part in _parts("\n".join(lines), _SLACK_TEXT)[:_SLACK_BLOCKS]
        ]
        if message.page:
            button = {"type": "button", "text": _plain("Open"), "url": message.page}
            blocks.append({"type": "actions", "elements": [button]})
        body = {
            # For notifications; there alone Slack would read markup.
            "text": html.escape(message.line[:_SLACK_TEXT], quote=False),
            "mrkdwn": False,
            "unfurl_links": False,
            "unfurl_media": False,
            "blocks": blocks,
        }
        url = self.reveal(self.sink.url_secret)
        await self.post(url, [_JSON], to_json(body).encode())


def _plain(text: str) -> dict[str, object]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _parts(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


class WebhookSender(HttpOutlet, Sender):
    """Standard Webhooks: type, timestamp and data, signed."""

    async def send(self, message: AlertMessage) -> None:
        """Post one message."""
        document = {
            "type": message.kind,
            "timestamp": iso(message.at),
            "data": {**message.data, "title": message.title, "text": message.text},
        }
        body = to_json(document).encode()
        secret, now = self.reveal(self.sink.secret), self.clock.now()
        try:
            signed = webhook_headers(secret, message.id, now, body)
        except ValueError as error:
            raise SinkError(str(error)) from None
        await self.post(self.sink.url, [_JSON, *signed], body)


class NtfySender(HttpOutlet, Sender):
    """A topic of ntfy: text, and headers that hold no word of an agent."""

    async def send(self, message: AlertMessage) -> None:
        """Post one message."""
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Title", message.subject),
            ("Priority", "high" if message.high else "default"),
        ]
        if message.page:
            headers.append(("Click", message.page))
        if self.sink.token:
            headers.append(("Authorization", f"Bearer {self.reveal(self.sink.token)}"))
        # A longer one would become a file.
        text = message.text.removeprefix(f"{message.subject}\n").encode()
        body = text[:_NTFY_BYTES].decode(errors="ignore").encode()
        await self.post(self.sink.url, headers, body)


class EmailSender(Sender):
    """Mail in plain text, over SMTP with TLS."""

    async def send(self, message: AlertMessage) -> None:
        """Send one message to all recipients."""
        sink = self.sink
        mail = EmailMessage(policy=SMTP)
        mail["From"] = sink.from_
        mail["To"] = ", ".join(sink.recipients)
        mail["Subject"] = f"AgentVault: {message.subject}"
        mail["Date"] = format_datetime(message.at)
        mail["Message-ID"] = f"<{message.id}@{sink.from_.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5
        mail.set_content(message.text)
        implicit = sink.tls == "implicit" or (sink.tls is True and sink.port == 465)
        password = self.reveal(sink.password) if sink.password else ""
        try:
            context = trust(sink.authorities) if sink.tls else None
            connected = await connected_to(
                sink.host, smtp_port(sink), private=sink.allow_private
            )
        except (UpstreamError, OSError):
            raise SinkError("it cannot be reached") from None
        session = _Smtp(connected, sink.host, context, implicit=implicit)
        guard = connected.dup()
        work = asyncio.create_task(
            asyncio.to_thread(session.deliver, mail, sink.username, password)
        )
        try:
            async with asyncio.timeout(SECONDS):
                await asyncio.shield(work)
        except TimeoutError:
            raise SinkError("it did not answer in time") from None
        except smtplib.SMTPResponseException as error:
            raise SinkError(f"it answered {error.smtp_code}") from None
        except smtplib.SMTPRecipientsRefused:
            raise SinkError("it refused the recipients") from None
        except smtplib.SMTPException:
            raise SinkError("it does not speak SMTP as it should") from None
        except ssl.SSLError:
            raise SinkError("TLS with it failed") from None
        except (OSError, ValueError):
            raise SinkError("it broke the connection off") from None
        finally:
            with suppress(OSError):  # whatever its thread waits for ends
                guard.shutdown(socket.SHUT_RDWR)
            guard.close()
            await asyncio.wait([work])


class _Smtp(smtplib.SMTP):
    """A session over a connected socket, since its address was checked."""

    def __init__(
        self,
        connected: socket.socket,
        host: str,
        context: ssl.SSLContext | None,
        *,
        implicit: bool,
    ) -> None:
        super().__init__(timeout=SECONDS, local_hostname="[127.0.0.1]")
        connected.settimeout(SECONDS)
        self._host = host  # which STARTTLS verifies
        self._connected = connected
        self._context = context
        self._implicit = implicit

    def _get_socket(self, *_: object) -> socket.socket:
        """Take the socket there is, in the place of connecting."""
        if self._implicit and self._context is not None:
            return self._context.wrap_socket(
                self._connected, server_hostname=self._host
            )
        return self._connected

    def deliver(self, mail: EmailMessage, username: str, password: str) -> None:
        """Greet, go over to TLS, sign in where there is a password, and send."""
        try:
            code, _ = self.connect(self._host, 25)
            if code != 220:
                raise smtplib.SMTPConnectError(code, "")
            if self._context is not None and not self._implicit:
                self.starttls(context=self._context)
            if username:
                self.login(username, password)
            if refused := self.send_message(mail):
                raise smtplib.SMTPRecipientsRefused(refused)
            with suppress(smtplib.SMTPException, OSError):
                self.quit()
        finally:
            self.close()
            self._connected.close()


SENDERS: Final[dict[str, type[Sender]]] = {
    "slack": SlackSender,
    "webhook": WebhookSender,
    "ntfy": NtfySender,
    "email": EmailSender,
}
