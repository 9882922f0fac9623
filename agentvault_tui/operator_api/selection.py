"""Encode events as an export that can be verified: see ``docs/ledger-format.md``.

Console and command line write the same bytes from the links that a broker returns. All
events of a ledger are a whole export. A selection of them names its filter and the head
of the ledger, and is verified against that ledger.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from agentvault_tui.clock import iso
from agentvault_tui.operator_api.history import LinkInfo, LinkList
from agentvault_tui.operator_api.proof import genesis
from agentvault_tui.operator_api.requests import LinksQuery

FORMAT: Final = "agentvault-ledger/1"
_LINKS_A_QUERY: Final = 200


def export_header(
    head: LinkList, count: int, now: datetime, selection: str | None
) -> bytes:
    """Encode the first line of an export.

    Args:
        head: the link of the last event of the ledger.
        count: the number of events that follow.
        now: the time of the export.
        selection: the filter as it was typed; None for all events.

    Returns:
        the line, with its line feed.
    """
    last = head.links[0]
    start: dict[str, object] = {"format": FORMAT, "ledger": head.ledger}
    if selection is None:
        start["from"] = {"seq": 0, "hash": genesis(head.ledger)}
    else:
        start["selection"] = {"filter": selection}
    start["to"] = {"seq": last.seq, "hash": last.hash}
    rest = {"count": count, "exported_at": iso(now)}
    return f"{json.dumps({**start, **rest}, separators=(',', ':'))}\n".encode()


def export_line(link: LinkInfo) -> bytes:
    """Encode one event: its recorded body, with its hash in front."""
    body = link.body.encode("utf-8", "surrogatepass")
    return b'{"hash":"%b",%b\n' % (link.hash.encode(), body[1:])


def link_queries(seqs: Sequence[int]) -> Iterator[LinksQuery]:
    """Yield the queries that return the links of events, in their order."""
    for start in range(0, len(seqs), _LINKS_A_QUERY):
        part = seqs[start : start + _LINKS_A_QUERY]
        yield LinksQuery(seq=",".join(map(str, part)))
