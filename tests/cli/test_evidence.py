"""`agentvault audit show` and the endpoints behind it, against a real broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from support.command_line import HOSTILE, Agent, Answer, Broker

from agentvault_tui.cli import audit as evidence
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.history import LinkInfo
from agentvault_tui.operator_api.proof import Proof
from agentvault_tui.operator_api.requests import LinksQuery

Run = Callable[..., Answer]


@pytest.fixture
def client(broker: Broker) -> OperatorClient:
    return OperatorClient.for_home(Home(broker.home, broker.home))


def last(av: Run) -> dict[str, Any]:
    (event,) = av("audit", "tail", "-n", "1", "--json").lines
    return dict(event)


def test_show_tells_an_event_and_computes_its_link(av: Run, agent: Agent) -> None:
    """All members, the raw body, both hashes, and that they hold; JSON the same."""
    agent.ask("send:payment", {"amount": 4200, "currency": "USD"})
    seq = str(last(av)["seq"])
    answer = av("audit", "show", seq, "--json")
    shown = answer.json
    assert answer.code == 0
    assert shown["event"]["hash"] == shown["hash"]
    assert (shown["verified"], shown["problem"]) == (True, "")
    kinds = [event["type"] for event in shown["story"]]
    assert kinds == ["token.decision", "stepup.requested"]
    people = av("audit", "show", seq).out
    for words in (
        "stepup.requested",
        agent.name,
        "story of 2 events",
        shown["hash"],
        shown["previous_hash"],
        "computed",
        shown["body"],
    ):
        assert words in people


def test_show_says_when_the_link_does_not_hold(
    av: Run, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that is not the hashed one ends in a word and exit code 1."""
    agent.ask("read:calendar", {})
    seq = str(last(av)["seq"])
    whole = Proof.read

    def forged(link: LinkInfo, ledger: str) -> Proof:
        return whole(replace(link, body=link.body.replace("allowed", "denied")), ledger)

    monkeypatch.setattr(evidence.Proof, "read", forged)
    answer = av("audit", "show", seq)
    assert answer.code == 1
    assert "fault" in answer.out
    assert "not that of the recorded body" in answer.out


def test_show_says_when_the_broker_tells_another_event_than_it_proves(
    av: Run, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that holds proves its own body, and not what stands beside it."""
    agent.ask("read:calendar", {})
    seq = str(last(av)["seq"])
    whole = OperatorClient.call

    def lies(client: OperatorClient, call: Any, *given: Any, **more: Any) -> Any:
        found = whole(client, call, *given, **more)
        if call is calls.EVENT:
            found.event.outcome = "denied"
        return found

    monkeypatch.setattr(OperatorClient, "call", lies)
    answer = av("audit", "show", seq, "--json")
    assert (answer.code, answer.json["verified"]) == (1, False)
    assert "another event" in answer.json["problem"]


def test_what_an_agent_wrote_is_inert(av: Run, agent: Agent) -> None:
    """Hostile text reaches no terminal as it is, in no member and not in the body."""
    agent.ask("read:calendar", {HOSTILE: HOSTILE}, HOSTILE)
    out = av("audit", "show", str(last(av)["seq"])).out
    assert all(row.isprintable() for row in out.split("\n"))


def test_bad_numbers_are_told(av: Run) -> None:
    """No such event is 4, no number is 2."""
    assert av("audit", "show", "999999").code == 4
    assert av("audit", "show", "0").code == 2
    assert av("audit", "show", "yesterday").code == 2
    assert av("audit", "show", "9" * 40).code == 4


def test_links_of_a_screen_are_read_at_once(
    av: Run, agent: Agent, client: OperatorClient
) -> None:
    """Each link asked for comes with the hash before it, from the genesis on."""
    agent.ask("read:calendar", {})
    head = last(av)["seq"]
    asked = f"1,2,{head},{head + 1}"
    page = client.call(calls.LINKS, LinksQuery(seq=asked))
    proofs = [Proof.read(link, page.ledger) for link in page.links]
    assert [proof.seq for proof in proofs] == [1, 2, head]
    assert [proof.problem() for proof in proofs] == ["", "", ""]
    assert proofs[1].problem(before=proofs[0].hash) == ""


@pytest.mark.parametrize("asked", ["", "a", "1,,2", "-1", "1" * 30, "1," * 200 + "1"])
def test_links_refuses_what_it_cannot_mean(client: OperatorClient, asked: str) -> None:
    """Not a list of at most 200 whole numbers: refused in words."""
    with pytest.raises(UsageError):
        client.call(calls.LINKS, LinksQuery(seq=asked))


def test_there_is_no_story_without_an_event(client: OperatorClient) -> None:
    """A number nobody has is not found."""
    with pytest.raises(NotFoundError):
        client.call(calls.STORY, seq=999_999)
