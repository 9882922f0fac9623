"""Answers and streams, as both clients read them from any version of the broker."""

from __future__ import annotations

import json

import pytest
from support.wire_shapes import MOMENT, agent_info, as_json

from agentvault_tui.errors import AgentVaultError
from agentvault_tui.operator_api.answers import read_events
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.shapes import AgentInfo, TenantInfo
from agentvault_tui.operator_api.sse import Decoder

EVENT = {
    "seq": 7,
    "time": MOMENT,
    "type": "token.decision",
    "actor": {"kind": "agent", "id": "agt_1", "name": "payer"},
    **dict.fromkeys(("agent_id", "action", "resource", "outcome", "reason")),
    **dict.fromkeys(("rule", "decision_id")),
    "detail": {},
    "hash": "sha256:00",
}


def read(*frames: tuple[str, object]) -> list[object]:
    text = "".join(f"event: {kind}\ndata: {json.dumps(d)}\n\n" for kind, d in frames)
    return list(read_events(Decoder().feed(text.encode())))


def test_each_kind_of_event_is_read_as_its_type() -> None:
    """Data of an unknown kind is passed over, so that a newer broker may send more."""
    tenant = {"issuer": "https://t.test/", "kind": "auth0", "reachable": False}
    found = read(("audit", EVENT), ("weather", {"rain": True}), ("tenant", tenant))
    assert [type(one) for one in found] == [EventInfo, TenantInfo]


def test_members_of_another_version_change_nothing() -> None:
    """Unknown members are ignored; those that came after the first version may lack."""
    whole = as_json(agent_info("agt_1", "payer"))
    first = {
        name: whole[name]
        for name in (
            *("id", "client_id", "name", "owner", "purpose", "status", "scopes"),
            *("created_at", "last_seen_at", "counts"),
        )
    }
    (found,) = read(("agent", {**first, "tokens": [], "colour": "blue"}))
    assert isinstance(found, AgentInfo)
    assert (found.name, found.upstream, found.live_tokens) == ("payer", (), 0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "not JSON"),
        ("[]", "of this version"),
        ('{"seq": 1}', "of this version"),
        ('{"detail": ' + '{"a": ' * 100_000, "not JSON"),
    ],
    ids=["cut off", "no object", "members lack", "deep"],
)
def test_data_that_is_none_is_told_in_words(data: str, said: str) -> None:
    """A stream that makes no sense ends the link; it never ends the program."""
    with pytest.raises(AgentVaultError, match=said):
        read_events(Decoder().feed(f"event: audit\ndata: {data}\n\n".encode()))
