"""The doctor on the certificate that agents are shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.cli.session import CliSession, lazily, lazy_room
from agentvault_tui.clock import SystemClock
from agentvault_tui.model.finding import Finding, fault, ok, warning

_SOON: Final = timedelta(days=30)


def check_tls(session: CliSession) -> Iterator[Finding]:
    """See that the certificate is whole, in time, and for where agents ask."""
    room = lazy_room("web.local_ca")
    settings = session.settings.broker
    files = room.chosen_files(session.home, settings)
    if files is None:
        yield ok("none: agents speak plain http, on loopback alone")
        return
    lazily("agentvault_tui.web.tls", "server_context")(files)
    read = lazily("agentvault_tui.web.certificates", "read_certificate")
    own = room.CaFiles.of(session.home)
    ours = files == own.leaf
    renew = "agentvault tls init" if ours else "renew it where it was made"
    found = read(files.cert)
    yield _lifetime(str(files.cert), found.starts, found.ends, renew)
    host, _ = settings.address
    if host not in found.names:
        yield warning(
            f"{files.cert} is not for {host}, where agents ask: "
            f"it is for {', '.join(found.names) or 'no name'}",
            f"agentvault tls init --name {host}" if ours else renew,
        )
    if ours:
        ends = read(own.ca)
        renew = "agentvault tls init --new-ca, and give agents the new one"
        yield _lifetime(str(own.ca), ends.starts, ends.ends, renew)


def _lifetime(path: str, starts: datetime, ends: datetime, renew: str) -> Finding:
    now = SystemClock().now()
    if ends <= now:
        return fault(f"{path} ended on {ends:%Y-%m-%d}: agents refuse it", renew)
    if starts > now:
        return fault(
            f"{path} begins on {starts:%Y-%m-%d %H:%M}Z: agents refuse it",
            "see whether the clock is right",
        )
    if ends - now < _SOON:
        return warning(f"{path} ends on {ends:%Y-%m-%d}", renew)
    return ok(f"{path} is good until {ends:%Y-%m-%d}")
