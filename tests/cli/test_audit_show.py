"""`agentvault audit show`, `past` and a followed tail: one event, and what was then."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.command_line import HOSTILE, Agent, Answer, Broker
from support.forked import Forked
from support.wire_shapes import agent_info, as_json, filled

from agentvault_tui.cli import audit as evidence
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.history import LinkInfo
from agentvault_tui.operator_api.proof import Proof
from agentvault_tui.operator_api.requests import LinksQuery
from agentvault_tui.operator_api.shapes import StatusInfo

Run = Callable[..., Answer]
Start = Callable[..., Forked]


@pytest.fixture
def client(broker: Broker) -> OperatorClient:
    return OperatorClient(Home(broker.home, broker.home).operator_socket)


def last(av: Run, agent: Agent) -> dict[str, Any]:
    """Return the agent's last event: the broker may have recorded others since."""
    return dict(av("audit", "search", "--agent", agent.id, "--json").lines[-1])


def test_show_tells_an_event_and_computes_its_link(av: Run, agent: Agent) -> None:
    """All members, the raw body, both hashes, and that they hold; JSON the same."""
    agent.ask("send:payment", {"amount": 4200, "currency": "USD"})
    seq = str(last(av, agent)["seq"])
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
        "2 events in",
        shown["hash"],
        shown["previous_hash"],
        "verified here: computed again",
        shown["body"],
    ):
        assert words in people


def test_show_says_when_the_link_does_not_hold(
    av: Run, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that is not the hashed one ends in a word and exit code 1."""
    agent.ask("read:calendar", {})
    seq = str(last(av, agent)["seq"])
    whole = Proof.read

    def forged(link: LinkInfo, ledger: str) -> Proof:
        return whole(replace(link, body=link.body.replace("allowed", "denied")), ledger)

    monkeypatch.setattr(evidence.Proof, "read", forged)
    answer = av("audit", "show", seq)
    assert answer.code == 1
    assert "does not match" in answer.out
    assert "not that of the recorded body" in answer.out


def test_show_says_when_the_broker_tells_another_event_than_it_proves(
    av: Run, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that holds proves its own body, and not what stands beside it."""
    agent.ask("read:calendar", {})
    seq = str(last(av, agent)["seq"])
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


def test_agent_text_in_tables_has_no_escape_sequence(av: Run, agent: Agent) -> None:
    """Hostile text reaches no terminal as it is, in no member and not in the body."""
    agent.ask("read:calendar", {HOSTILE: HOSTILE}, HOSTILE)
    out = av("audit", "show", str(last(av, agent)["seq"])).out
    assert all(row.isprintable() for row in out.split("\n"))


def test_audit_show_exits_four_for_no_event_and_two_for_no_number(av: Run) -> None:
    """No such event is 4, no number is 2."""
    assert av("audit", "show", "999999").code == 4
    assert av("audit", "show", "0").code == 2
    assert av("audit", "show", "yesterday").code == 2
    assert av("audit", "show", "9" * 40).code == 4


def test_proofs_of_many_events_are_read_in_one_request(
    av: Run, agent: Agent, client: OperatorClient
) -> None:
    """Each link that exists comes with the hash before it, from the genesis on."""
    agent.ask("read:calendar", {})
    head = last(av, agent)["seq"]
    page = client.call(calls.LINKS, LinksQuery(seq=f"1,2,{head},999999"))
    proofs = [Proof.read(link, page.ledger) for link in page.links]
    assert [proof.seq for proof in proofs] == [1, 2, head]
    assert [proof.problem() for proof in proofs] == ["", "", ""]
    assert proofs[1].problem(before=proofs[0].hash) == ""


@pytest.mark.parametrize("asked", ["", "a", "1,,2", "-1", "1" * 30, "1," * 200 + "1"])
def test_the_links_endpoint_refuses_bad_numbers(
    client: OperatorClient, asked: str
) -> None:
    """Not a list of at most 200 whole numbers: refused in words."""
    with pytest.raises(UsageError):
        client.call(calls.LINKS, LinksQuery(seq=asked))


def test_there_is_no_story_without_an_event(client: OperatorClient) -> None:
    """A number nobody has is not found."""
    with pytest.raises(NotFoundError):
        client.call(calls.STORY, seq=999_999)


def event(seq: int) -> dict[str, Any]:
    return {
        "seq": seq,
        "time": "2026-11-24T10:00:00.000000Z",
        "type": "token.decision",
        "actor": {"kind": "agent", "id": "agt_1", "name": "a"},
        "agent_id": "agt_1",
        "action": "read:email",
        "resource": None,
        "outcome": "allowed",
        "reason": None,
        "rule": None,
        "decision_id": None,
        "detail": {},
        "hash": "sha256:0",
    }


def audit(seq: int) -> str:
    return f"id: {seq}\nevent: audit\ndata: {json.dumps(event(seq))}\n\n"


@contextmanager
def broker(home: Path, streams: list[str]) -> Iterator[list[str]]:
    """Answer status with head 5, and each stream asked for with the next text."""
    resumed: list[str] = []
    (home / "run").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(home / "run" / "agentvault.sock"))
        listener.listen()

        def serve() -> None:
            while streams:
                connection, _ = listener.accept()
                with connection:
                    asked = connection.recv(65_536).decode()
                    connection.sendall(answer(asked).encode())

        def answer(asked: str) -> str:
            if asked.startswith("GET /api/events"):
                (last,) = (
                    line.partition(": ")[2]
                    for line in asked.splitlines()
                    if line.lower().startswith("last-event-id")
                )
                resumed.append(last)
                return f"HTTP/1.1 200 OK\r\n\r\n{streams.pop(0)}"
            found = filled(StatusInfo, {"ledger": {"head": 5}})
            body = json.dumps({**as_json(found), "events": [], "next": None})
            return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"

        thread = threading.Thread(target=serve)
        thread.start()
        yield resumed
        thread.join()


@pytest.mark.slow
def test_follow_resumes_without_repeat_and_refuses_another_ledger(
    cli: Run, tmp_path: Path
) -> None:
    """A cut stream resumes behind the last event; a reset is said loudly, exit 1."""
    agent = json.dumps(as_json(agent_info("agt_1", "a")))
    other = f"event: agent\ndata: {agent}\n\n"
    reset = 'event: reset\ndata: {"head":3}\n\n'
    # The second stream repeats 7, as one cut in the middle of a commit may.
    streams = [other + audit(6) + audit(7), audit(7) + audit(8), reset]
    with broker(tmp_path, streams) as resumed:
        answer = cli("--home", str(tmp_path), "audit", "tail", "-f", "--json")
    assert [item["seq"] for item in answer.lines] == [6, 7, 8]
    assert resumed == ["5", "7", "8"]
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "not the ledger that was followed" in answer.err
    assert "event 8" in answer.err


def test_audit_past_shows_the_state_right_after_an_event(av: Run, agent: Agent) -> None:
    """Right after its registration an agent held nothing; later it held its token."""
    search = ("audit", "search", "--agent", agent.id, "--json")
    (registered,) = av(*search, "--type", "agent.registered").lines
    agent.ask("read:calendar", {})
    agent.ask("send:payment", {"amount": 9, "currency": "EUR"}, HOSTILE)
    (decision, escalated) = av(*search, "--type", "token.decision").lines

    def then(seq: int) -> dict[str, object]:
        found = av("audit", "past", "--seq", str(seq), "--json").json
        (mine,) = [each for each in found["agents"] if each["id"] == agent.id]
        waiting = [s["action"] for s in found["stepups"] if s["agent_id"] == agent.id]
        return {**mine, "waiting": waiting, "at": found["at"]}

    first = then(registered["seq"])
    assert first["tokens_live"] == 0
    assert first["counts"] == {"allowed": 0, "denied": 0, "escalated": 0}
    assert first["at"] == registered["time"]
    second = then(decision["seq"])
    assert second["tokens_live"] == 1
    assert second["waiting"] == []
    assert then(escalated["seq"] + 1)["waiting"] == ["send:payment"]
    people = av("audit", "past", "--seq", str(escalated["seq"] + 1)).out
    assert agent.name in people
    assert "send:payment" in people
    assert "s left" in people
    assert all(row.isprintable() for row in people.split("\n"))


def test_past_by_time(av: Run, agent: Agent) -> None:
    """A time, or how long ago, is told as of that moment."""
    now = av("audit", "past", "--at", "0s", "--json").json
    assert agent.id in {each["id"] for each in now["agents"]}
    assert now["at"] >= now["time"]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ([], 2, "give one moment"),
        (["--at", "1m", "--seq", "1"], 2, "give one moment"),
        (["--at", "soonish"], 2, "is not a time"),
        (["--at", "2099-01-01T00:00:00Z"], 2, "still to come"),
        (["--at", "2001-01-01T00:00:00Z"], 4, "the first event was at"),
        (["--seq", "99999999"], 4, "no event 99999999"),
    ],
)
def test_audit_past_refuses_moments_it_cannot_show(
    av: Run, line: list[str], code: int, words: str
) -> None:
    """What is no moment, to come, or before all exits 2 or 4 with one line."""
    answer = av("audit", "past", *line)
    assert answer.code == code
    assert words in answer.err
    assert answer.err.count("\n") == 1
