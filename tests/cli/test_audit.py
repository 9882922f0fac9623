"""`agentvault audit` against a real broker, and on files with none."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace
from support.command_line import HOSTILE, Agent, Answer, Broker
from support.forked import Forked
from support.ledger_kit import unguarded
from support.ocsf_check import faults
from support.wire_shapes import filled

from agentvault_tui.cli import audit as evidence
from agentvault_tui.cli.output import Output
from agentvault_tui.operator_api.history import EventInfo

Run = Callable[..., Answer]
Start = Callable[..., Forked]


def test_tail_shows_the_latest_oldest_first(av: Run, agent: Agent) -> None:
    """`tail -n` ends with what happened last, each event once."""
    agent.ask("read:calendar", {})
    events = av("audit", "tail", "-n", "3", "--json").lines
    numbers = [event["seq"] for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    # A broker that has just started records its state meanwhile.
    *_, asked = (one for one in events if one["agent_id"] == agent.id)
    assert asked["type"] == "token.decision"
    rows = av("audit", "tail", "-n", "2").out.splitlines()
    assert [row for row in rows if "allowed" in row and agent.name in row]
    assert av("audit", "tail", "-n", "0").out == ""


def test_what_came_of_a_call_is_not_taken_for_a_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Status and duration are the broker's words; a reason may be the agent's."""
    told = {"status": 200, "bytes_in": 0, "bytes_out": 1, "ms": 123_456}
    actor = {"kind": "agent", "id": "agt_1", "name": "payer"}
    about = {"type": "gateway.result", "actor": actor, "detail": told}
    event = filled(EventInfo, {**about, "time": "2026-11-24T10:00:00Z"})
    evidence.print_event(Output.detect(json_mode=False), event)
    evidence.print_event(
        Output.detect(json_mode=False), replace(event, reason="dial 555 123456")
    )
    plain, hostile = capsys.readouterr().out.splitlines()
    assert "200 in 2 m 3 s" in plain
    assert "code masked" in hostile


def test_of_a_team_the_broker_that_recorded_an_event_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By its host, or by its id once it is forgotten; without a team nothing is."""
    out, hosts = Output.detect(json_mode=False), {"brk_a": "vault-1"}
    for by in ("brk_a", "brk_gone", None):
        detail = {"broker": by} if by else {}
        actor = {"kind": "system", "id": "broker", "name": "broker"}
        about = {"type": "broker.started", "actor": actor, "detail": detail}
        event = filled(EventInfo, {**about, "time": "2026-11-24T10:00:00Z"})
        evidence.print_event(out, event, brokers=hosts)
        evidence.print_event(out, event)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines[::2]] == ["vault-1", "brk_gone", "-"]
    assert "brk_" not in "".join(lines[1::2])


def test_tail_names_the_agent_of_what_others_did(av: Run, agent: Agent) -> None:
    """By its name, not its id, which no person knows."""
    asked = agent.ask("send:payment", {"amount": 1, "currency": "USD"})
    av("stepup", "deny", asked["auth_req_id"], "--reason", "no")
    (line,) = av("audit", "tail", "-n", "1").out.splitlines()
    assert agent.name in line
    assert agent.id not in line


def test_tail_says_which_call_was_refused(av: Run, agent: Agent) -> None:
    """Method and path, also where no route matched and so no resource is known."""
    token = agent.ask("read:calendar", {})["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{agent.broker.url}/gw/nowhere/v1/x"
    assert httpx.get(url, headers=headers).status_code == 404
    (line,) = av("audit", "tail", "-n", "1").out.splitlines()
    assert "GET" in line
    assert "/v1/x" in line


def test_tail_goes_on_after_a_number(av: Run, agent: Agent) -> None:
    """All that came after it and nothing else; a number from the future is an error."""
    agent.ask("read:calendar", {})
    known = [event["seq"] for event in av("audit", "tail", "--json").lines]
    agent.ask("read:calendar", {})
    agent.ask("read:calendar", {})
    read = av("audit", "tail", "--after", str(known[-1]), "--json").lines
    assert [event["seq"] for event in read] == [known[-1] + 1, known[-1] + 2]
    first = av("audit", "tail", "--after", str(known[-1]), "-n", "1", "--json").lines
    assert first == read[:1]
    head = read[-1]["seq"]
    assert av("audit", "tail", "--after", str(head)).out == ""
    beyond = av("audit", "tail", "--after", str(head + 9))
    assert beyond.code == 4
    assert f"ends at event {head}" in beyond.err
    assert av("audit", "tail", "--after", "1", "-n", "1", "-f").code == 2


def test_an_export_after_a_number_verifies_from_there(
    av: Run, agent: Agent, tmp_path: Path
) -> None:
    """It holds the rest, and says where it begins."""
    agent.ask("read:calendar", {})
    head = av("audit", "tail", "-n", "1", "--json").lines[-1]["seq"]
    agent.ask("read:calendar", {})
    file = tmp_path / "rest.jsonl"
    assert (
        av("audit", "export", str(file), "--after", str(head), "--json").json["events"]
        == 1
    )
    found = av("audit", "verify", str(file), "--json").json
    assert (found["ok"], found["events"], found["head"]) == (True, 1, head + 1)
    more = av("audit", "export", str(file), "--force", "--after", str(head + 9))
    assert more.code == 4


def test_audit_tail_follow_prints_each_event_once(start: Start, agent: Agent) -> None:
    """What happens while following comes once each, right after what was there."""
    process = start("audit", "tail", "-n", "1", "-f", "--json")
    first = json.loads(process.stdout.readline())["seq"]
    for _ in range(20):
        agent.ask("read:calendar", {})
    numbers = [json.loads(process.stdout.readline())["seq"] for _ in range(20)]
    assert numbers == list(range(first + 1, first + 21))


def test_search_filters(av: Run, agent: Agent) -> None:
    """Agent, outcome, type, text and times each narrow what is found."""
    agent.ask("read:calendar", {})
    agent.ask("read:finance", {})
    marker = "Rumpelstiltskin"
    agent.ask("send:payment", {"amount": 3, "currency": "EUR", "memo": marker})

    def found(*extra: str) -> list[str]:
        answer = av("audit", "search", "--agent", agent.name, "--json", *extra)
        assert answer.code == 0
        return [event["outcome"] for event in answer.lines]

    assert found("--outcome", "denied") == ["denied"]
    assert found("--type", "token.decision") == ["allowed", "denied", "escalated"]
    assert found("--type", "token.decision", "-n", "2") == ["denied", "escalated"]
    assert found("--since", "10m", "--outcome", "allowed") == ["allowed"]
    assert found("--until", "10m") == []
    assert found("--since", "2099-01-01T00:00:00Z") == []
    assert "escalated" in found(marker.lower())
    assert av("audit", "search", "--outcome", "maybe").code == 2
    assert av("audit", "search", "--agent", "nobody").code == 4


def test_search_takes_the_filter_of_the_console(av: Run, agent: Agent) -> None:
    """Keys mean what they mean there; what the broker cannot look for is left to us."""
    agent.ask("read:calendar", {})
    agent.ask("read:finance", {})

    def found(*given: str) -> list[int]:
        answer = av("audit", "search", "--json", *given)
        assert answer.code == 0
        return [event["seq"] for event in answer.lines]

    flags = found("--agent", agent.name, "--outcome", "allowed")
    assert flags
    assert found(f"agent:{agent.name} outcome:allowed") == flags
    assert found(f"agent:{agent.name}", "outcome:allowed") == flags
    assert found("outcome:allowed", "--agent", agent.name) == flags
    assert found("-n", "1", f"agent:{agent.name} outcome:allowed") == flags[-1:]
    every = found("--agent", agent.name)
    others = found("--", f"agent:{agent.name}", "-outcome:allowed")
    assert sorted(others + flags) == every
    assert found("owner:nobody type:token.decision") == []
    told = av("audit", "search", "outcome:allowed", "frobnicate:x")
    assert "frobnicate" in told.err


def test_search_reads_every_page(av: Run, agent: Agent) -> None:
    """Without a number every match comes, over as many pages as it takes."""
    everything = av("audit", "search", "--json").lines
    numbers = [event["seq"] for event in everything]
    assert numbers == list(range(1, numbers[-1] + 1))


def test_hostile_events_are_inert(av: Run, agent: Agent) -> None:
    """What an agent puts in an event reaches no terminal as it is."""
    agent.ask("read:calendar", {"memo": HOSTILE}, HOSTILE)
    av("agents", "revoke", agent.id, "--reason", HOSTILE)
    paying = {"amount": 1, "currency": "USD"}
    agent.ask("send:payment", paying, "enter KDRT-WZNB at https://evil.test")
    out = av("audit", "tail", "-n", "6").out
    assert "evil.test" not in out
    assert "KDRT" not in out
    assert all(row.isprintable() for row in out.split("\n"))
    assert av("audit", "tail", "-n", "3", "--json").out.isascii()


def test_export_verifies_elsewhere_and_is_private(
    av: Run, cli: Run, agent: Agent, tmp_path: Path
) -> None:
    """An export is 0600, verifies with no home at all, and a changed one does not."""
    agent.ask("read:calendar", {})
    file = tmp_path / "events.jsonl"
    exported = av("audit", "export", str(file), "--json").json
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    elsewhere = ("--home", str(tmp_path / "empty"), "audit", "verify")
    verified = cli(*elsewhere, str(file), "--json")
    assert verified.code == 0
    assert verified.json["ok"] is True
    assert verified.json["events"] == exported["events"]
    assert verified.json["head"] == exported["head"]
    lines = file.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"type":', b'"Type":')
    file.write_bytes(b"".join(lines))
    bad = cli(*elsewhere, str(file), "--json")
    assert bad.code == 1
    assert bad.json["first_bad"] == 3
    people = cli(*elsewhere, str(file))
    assert people.code == 1
    assert "event 3" in people.out


def test_a_filtered_export_verifies_as_a_selection(
    av: Run, cli: Run, broker: Broker, agent: Agent, tmp_path: Path
) -> None:
    """It takes the filters of `search`, and is worth something beside a ledger only."""
    agent.ask("read:calendar", {})
    agent.ask("read:calendar", {})
    chosen, whole = tmp_path / "chosen.jsonl", tmp_path / "whole.jsonl"
    line = ("--agent", agent.id, "--outcome", "allowed")
    done = av("audit", "export", str(chosen), *line, "--json").json
    assert (done["events"], done["selection"]) == (2, True)
    found = av("audit", "search", *line, "--json").lines
    header, *events = map(json.loads, chosen.read_text().splitlines())
    assert [event["seq"] for event in events] == [event["seq"] for event in found]
    assert header["selection"]["filter"] == f"agent:{agent.id} outcome:allowed"
    printed = av("audit", "export", str(chosen), *line, "--force").out
    shown = printed.partition("verify it: agentvault ")[2].split()
    assert shown[-2:] == ["--against", str(broker.home)]
    assert cli(*shown).code == 0
    av("audit", "export", str(whole))
    alone = cli("audit", "verify", str(chosen))
    assert alone.code == 1
    assert "selection of 2 events, not compared with a ledger" in alone.out
    for against in (whole, broker.home):
        told = cli("audit", "verify", str(chosen), "--against", str(against))
        assert told.code == 0
        assert f"selection of 2 events, each in the ledger up to {done['head']:,}" in (
            told.out
        )
    lines = chosen.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"allowed", b"denied!")
    chosen.write_bytes(b"".join(lines))
    told = cli("audit", "verify", str(chosen), "--against", str(whole))
    assert (told.code, "1 of 2 events checked before the fault" in told.out) == (
        1,
        True,
    )


def test_another_file_is_no_fault_of_the_ledger(av: Run, tmp_path: Path) -> None:
    """A file of another format exits 2, and no event is called wrong."""
    file = tmp_path / "events.csv"
    assert av("audit", "export", str(file), "--format", "csv").code == 0
    answer = av("audit", "verify", str(file))
    assert (answer.code, answer.out) == (2, "")
    assert "is no export that can be verified" in answer.err


def test_export_to_csv(av: Run, agent: Agent, tmp_path: Path) -> None:
    """`--format csv` writes one row an event, for spreadsheets."""
    file = tmp_path / "events.csv"
    done = av("audit", "export", str(file), "--format", "csv", "--json").json
    with file.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == done["events"]
    assert [row["seq"] for row in rows] == [str(n + 1) for n in range(len(rows))]
    assert "broker.started" in {row["type"] for row in rows}


def test_export_to_ocsf(av: Run, agent: Agent, tmp_path: Path) -> None:
    """`--format ocsf` writes a record an event, each as the schema says, resumable."""
    file = tmp_path / "events.jsonl"
    done = av("audit", "export", str(file), "--format", "ocsf", "--json").json
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [faults(record) for record in records] == [[]] * done["events"]
    assert records[-1]["metadata"]["sequence"] == done["head"]
    assert records[-1]["metadata"]["uid"] == done["hash"]
    later = ("--format", "ocsf", "--after", "2", "--force", "--json")
    more = av("audit", "export", str(file), *later).json
    assert more["events"] == more["head"] - 2


def test_exports_that_cannot_be_written(av: Run, tmp_path: Path) -> None:
    """A folder, or a file in a folder that is not there, is wrong usage."""
    assert av("audit", "export", str(tmp_path)).code == 2
    assert av("audit", "export", str(tmp_path / "none" / "x.jsonl")).code == 2


def test_an_export_replaces_a_file_only_when_forced(
    av: Run, broker: Broker, tmp_path: Path
) -> None:
    """An earlier export is evidence, and the database is the record itself."""
    evidence = tmp_path / "events.jsonl"
    evidence.write_text("evidence")
    refused = av("audit", "export", str(evidence))
    assert (refused.code, evidence.read_text()) == (2, "evidence")
    assert "--force" in refused.err
    assert av("audit", "export", str(evidence), "--force").code == 0
    assert evidence.read_text() != "evidence"
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "nowhere")
    assert av("audit", "export", str(link)).code == 2
    for name in ("agentvault.db", "keys/ledger-head.json"):
        own = broker.home / name
        before = own.read_bytes()[:16]
        answer = av("audit", "export", str(own), "--force")
        assert (answer.code, own.read_bytes()[:16]) == (2, before)
        assert "is a file of the home" in answer.err


@pytest.mark.parametrize("line", [["verify"], ["export", "x.jsonl"]])
def test_no_ledger_exits_four(line: list[str], cli: Run, tmp_path: Path) -> None:
    """With no ledger there is no such thing."""
    answer = cli("--home", str(tmp_path), "audit", *line)
    assert answer.code == 4
    assert answer.err.count("\n") == 1


def test_verify_of_a_missing_file_exits_four(cli: Run, tmp_path: Path) -> None:
    """A file that is not there is no such thing."""
    assert cli("audit", "verify", str(tmp_path / "none.jsonl")).code == 4


def test_verify_live_beside_the_broker(av: Run) -> None:
    """The live store verifies while it is written."""
    answer = av("audit", "verify", "--json")
    assert answer.code == 0
    assert answer.json["head"] == answer.json["events"]


def _copied(broker: Broker, tmp_path: Path) -> Path:
    """Return a copy of the broker's home, as far as a verification reads it."""
    copy = tmp_path / "copy"
    (copy / "keys").mkdir(parents=True)
    with closing(sqlite3.connect(broker.home / "agentvault.db")) as source, source:
        with closing(sqlite3.connect(copy / "agentvault.db")) as target, target:
            source.backup(target)
        target.close()
    source.close()
    shutil.copy(broker.home / "keys" / "ledger-head.json", copy / "keys")
    return copy


def test_verify_names_an_agent_whose_row_was_changed(
    av: Run, cli: Run, broker: Broker, agent: Agent, tmp_path: Path
) -> None:
    """A whole chain does not hide that the state beside it says otherwise."""
    copy = _copied(broker, tmp_path)
    line = ("--home", str(copy), "audit", "verify", "--json")
    assert cli(*line).code == 0
    with closing(sqlite3.connect(copy / "agentvault.db")) as db, db:
        db.execute(
            "UPDATE agents SET doc = replace(doc, 'send:payment', 'send:all')"
            " WHERE id = ?",
            (agent.id,),
        )
    db.close()
    answer = cli(*line)
    assert answer.code == 1
    assert f"agent {agent.id} is not as its event says" in answer.json["problem"]


def test_verify_names_a_changed_event(
    av: Run, cli: Run, broker: Broker, tmp_path: Path
) -> None:
    """A row changed behind the broker's back is named, with no broker running."""
    copy = _copied(broker, tmp_path)
    line = ("--home", str(copy), "audit", "verify", "--json")
    assert cli(*line).code == 0
    with closing(sqlite3.connect(copy / "agentvault.db")) as db, unguarded(db):
        ((seq,),) = db.execute(
            "UPDATE events SET body = replace(body, 'broker', 'brOker') WHERE seq ="
            " (SELECT min(seq) FROM events WHERE body LIKE '%broker%') RETURNING seq"
        ).fetchall()
    answer = cli(*line)
    assert (answer.code, answer.json["ok"]) == (1, False)
    assert answer.json["first_bad"] == seq
    assert f"event {seq}: its hash does not follow" in cli(*line[:-1]).out


@pytest.mark.slow
def test_accept_goes_on_from_a_restored_copy(
    cli: Run, process: Run, broker: Broker, agent: Agent, tmp_path: Path
) -> None:
    """An older copy put back is refused at the start until accepted, on record."""
    (tmp_path / "keys").mkdir()
    with closing(sqlite3.connect(broker.home / "agentvault.db")) as source, source:
        with closing(sqlite3.connect(tmp_path / "agentvault.db")) as target, target:
            source.backup(target)
            (old,) = target.execute("SELECT max(seq) FROM events").fetchone()
        target.close()
    source.close()
    head_file = broker.home / "keys" / "ledger-head.json"
    for _ in range(1000):
        agent.ask("read:calendar", {})
        if json.loads(head_file.read_text())["seq"] > old:
            break
    shutil.copy(head_file, tmp_path / "keys")
    home = str(tmp_path)
    refused = process("--home", home, "serve", "--listen", "127.0.0.1:0")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("agentvault: ")
    assert refused.err.count("\n") == 1
    assert cli("--home", home, "audit", "verify").code == 1
    assert cli("--home", home, "audit", "accept", "--reason", " ").code == 2
    accepted = cli(
        *("--home", home, "audit", "accept", "--reason", "restored Monday", "--json")
    )
    assert accepted.json["head"] == old + 1
    assert cli("--home", home, "audit", "verify").code == 0


def test_accept_is_refused_beside_a_broker(av: Run) -> None:
    """Nothing is accepted under a running broker."""
    assert av("audit", "accept", "--reason", "x").code == 1
