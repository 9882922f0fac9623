"""Computes links of the ledger again, for those who do not take the broker's word.

Written from ``docs/ledger-format.md`` alone, so that console and command line can
compare the shown content with the exact recorded bytes.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from agentvault_tui.operator_api.codec import decode
from agentvault_tui.operator_api.history import EventInfo, LinkInfo

_GENESIS: Final = b"agentvault ledger v1\n"
_LINK: Final = b"agentvault event v1\n"
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Proof:
    """A broker's data to compute one link again; nothing of it is trusted."""

    seq: int
    body: str
    hash: str
    previous: str
    ledger: str

    @classmethod
    def read(cls, link: LinkInfo, ledger: str) -> Proof:
        """Read a link of ``/api/audit/{seq}`` or ``/api/audit/links``."""
        seq = link.seq if 0 < link.seq < 2**63 else 0
        return cls(seq, link.body, link.hash, link.previous_hash, ledger)

    def event(self) -> EventInfo | None:
        """Return the event that the body tells, as the API writes it; None if none."""
        try:
            return replace(decode(self.body, EventInfo), hash=self.hash)
        except ValueError:
            return None

    def problem(self, before: str | None = None) -> str:
        """Say why this link does not hold; empty when it does.

        Args:
            before: the hash of the event before it, where that is known here.
        """
        if not _HASH.fullmatch(self.hash) or not _HASH.fullmatch(self.previous):
            return "a hash is not written as one"
        if link(self.previous, self.seq, self.body) != self.hash:
            return "the hash is not that of the recorded body"
        if (event := self.event()) is None or event.seq != self.seq:
            return "the body is that of another event"
        if self.seq == 1 and self.previous != genesis(self.ledger):
            return "it does not begin this ledger"
        if before is not None and before != self.previous:
            return "it does not follow the event before it"
        return ""


def genesis(ledger: str) -> str:
    """Return the hash before the first event."""
    return "sha256:" + hashlib.sha256(_GENESIS + ledger.encode()).hexdigest()


def link(previous: str, seq: int, body: str) -> str:
    """Return the hash of event *seq*; *previous* is written as a hash is."""
    raw = body.encode("utf-8", "surrogatepass")
    before = bytes.fromhex(previous.removeprefix("sha256:"))
    place = seq.to_bytes(8, "big") + len(raw).to_bytes(8, "big")
    return "sha256:" + hashlib.sha256(_LINK + before + place + raw).hexdigest()
