"""`agentvault agents` against a real broker."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.command_line import HOSTILE, Agent, Answer, Broker
from support.forked import agentvault
from support.patience import PATIENT
from support.terminal import Terminal
from support.wire_shapes import filled

from agentvault_tui.cli.agents import _speaks_tls
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.revoking import print_elsewhere
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock, iso
from agentvault_tui.home import Home
from agentvault_tui.operator_api.shapes import AgentInfo
from agentvault_tui.web.local_ca import renew

Run = Callable[..., Answer]


@pytest.mark.slow
def test_add_prints_the_secret_once_and_it_works(av: Run, agent: Agent) -> None:
    """`add --json` gives exactly id, client id and a secret the broker accepts."""
    token = agent.ask("read:calendar", {})
    assert token["token_type"] == "Bearer"
    shown = av("agents", "show", agent.id, "--json").json
    assert "client_secret" not in shown
    assert agent.secret not in json.dumps(shown)


def test_rename_and_remove(av: Run, tmp_path: Path) -> None:
    """An agent of an applied file keeps its name; only a revoked one is removed."""
    file = tmp_path / "agents.toml"
    file.write_text('[agents.of-a-file]\nowner = "o@acme.test"\n')
    assert av("apply", "-f", str(file)).code == 0
    refused = av("agents", "rename", "of-a-file", "other")
    assert (refused.code, f"is in the file {file}" in refused.err) == (1, True)
    file.write_text("[agents]\n")
    assert av("apply", "-f", str(file)).code == 0
    assert "other" in av("agents", "rename", "of-a-file", "other").out
    assert av("agents", "remove", "other").code == 1
    assert av("revoke", "other").code == 0
    removed = av("agents", "remove", "other", "--json").json
    assert removed["removed_at"]
    listed = av("agents", "list", "--json").json["agents"]
    assert removed["id"] not in {one["id"] for one in listed}
    assert av("agents", "show", removed["id"]).code == 0
    assert "of-a-file" in av("audit", "search", "--agent", removed["id"]).out


@pytest.mark.slow
def test_add_json_has_three_members(av: Run) -> None:
    """The members are the contract's."""
    added = av(
        *("agents", "add", "three-members", "--owner", "o", "--scope", "read:email"),
        "--json",
    ).json
    assert added.keys() == {"id", "client_id", "client_secret"}


def test_add_with_a_public_key_gives_no_secret(av: Run, tmp_path: Path) -> None:
    """A public key stands in for the secret; a private one is refused unsent."""
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    private = tmp_path / "private.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    line = ("agents", "add", "keyed", "--owner", "o", "--scope", "read:email")
    refused = av(*line, "--public-key", str(private))
    assert refused.code == 2
    assert "holds a private key" in refused.err
    added = av(*line, "--public-key", str(public), "--json").json
    assert added.keys() == {"id", "client_id"}
    assert av(*line, "--public-key", str(tmp_path / "none")).code == 2


def test_add_warns_that_the_secret_is_shown_once(broker: Broker) -> None:
    """On a terminal a person is told to keep it now."""
    line = ("agents", "add", "told-once", "--owner", "o", "--scope", "read:email")
    with Terminal([agentvault, *line], broker.env) as terminal:
        assert terminal.finish() == 0
    assert "shown this once" in terminal.text
    assert "av_s_" in terminal.text
    assert "agentvault tls init" in terminal.text


def test_a_broker_that_shows_a_certificate_needs_no_warning(tmp_path: Path) -> None:
    """Nor does one elsewhere; settings that cannot be read warn."""
    home = Home.locate(tmp_path / "h")
    home.prepare()

    def warned(connect: str | None = None) -> bool:
        return not _speaks_tls(CliSession(str(home.data), connect=connect))

    assert warned()
    assert not warned("https://ops.example")
    renew(home, now=SystemClock().now())
    assert not warned()
    home.config_file.write_text("[broker]\ntls_cert = 'alone.pem'\n")
    assert warned()


def test_unknown_scope_names_the_nearest(av: Run) -> None:
    """A misspelt scope is refused as wrong usage, with what it may have meant."""
    answer = av("agents", "add", "typo", "--owner", "o", "--scope", "read:calender")
    assert answer.code == 2
    assert "read:calendar" in answer.err


def test_a_taken_agent_name_exits_one(av: Run, agent: Agent) -> None:
    """Two agents cannot share a name: it ran, and the answer is no."""
    answer = av("agents", "add", agent.name, "--owner", "o", "--scope", "read:email")
    assert answer.code == 1


def test_list_shows_agents_to_people_and_programs(av: Run, agent: Agent) -> None:
    """People see a row, programs the shape of the operators' HTTP."""
    agent.ask("read:calendar", {})
    agents = {
        item["id"]: item for item in av("agents", "list", "--json").json["agents"]
    }
    assert agents[agent.id]["counts"]["allowed"] == 1
    (row,) = [
        line for line in av("agents", "list").out.splitlines() if agent.id in line
    ]
    assert row.split()[:6] == [
        agent.name,
        agent.id,
        "bob@acme.test",
        "active",
        "1",
        "1",
    ]


def test_show_accepts_id_and_name(av: Run, agent: Agent) -> None:
    """An id and a unique name mean the same agent."""
    by_id = av("agents", "show", agent.id, "--json").json
    by_name = av("agents", "show", agent.name, "--json").json
    assert by_id["id"] == by_name["id"] == agent.id
    assert agent.id in av("agents", "show", agent.name).out


def test_show_tells_what_the_agent_did(av: Run, agent: Agent) -> None:
    """Uses, refusals, the day and the cut: to people in words, to programs whole."""
    agent.ask("read:calendar", {})
    agent.ask("delete:records", {})
    shown = av("agents", "show", agent.id, "--json").json["activity"]
    uses = {use["scope"]: use for use in shown["scopes"]}
    assert uses["read:calendar"]["uses"] == 1
    assert uses["delete:records"]["granted"] is False
    assert shown["denials"][0]["reason"] == "scope_not_granted"
    assert len(shown["quarters"]["allowed"]) == 96
    assert sum(shown["quarters"]["denied"]) == 1
    assert shown["revoke"] == {"tokens": 1, "elevated": 0, "stepups": 0}
    said = " ".join(av("agents", "show", agent.id).out.split())
    assert "Revoking ends 1 token, 0 step-ups, at once all it asks for" in said
    assert "Denied 1 not granted" in said
    assert re.search(r"denied \S+█ 1, at most 1", said)
    assert "never used" in said
    assert "delete:records not granted" in said


def test_no_such_agent_exits_four(av: Run, agent: Agent) -> None:
    """A misspelt name exits 4 and is answered with near ones."""
    answer = av("agents", "show", f"{agent.name}x")
    assert (answer.code, answer.out) == (4, "")
    assert agent.name in answer.err


def test_agents_revoke_ends_tokens_and_restore_serves_again(
    av: Run, agent: Agent
) -> None:
    """Revoking ends live tokens with the measured time; restoring serves again."""
    agent.ask("read:calendar", {})
    cut = av("agents", "revoke", agent.name, "--reason", "drill", "--json").json
    assert cut["agent"]["status"] == "revoked"
    assert cut["tokens_revoked"] == 1
    assert agent.ask("read:calendar", {})["reason"] == "agent_revoked"
    assert av("agents", "restore", agent.name).out.startswith("restored ")
    assert "was not revoked" in av("agents", "restore", agent.name).out
    assert "access_token" in agent.ask("read:calendar", {})
    people = av("agents", "revoke", agent.id)
    assert "ms; ended: 1 token, 0 step-ups" in people.out
    again = av("agents", "revoke", agent.id).out
    assert re.match(rf".*{agent.id}.* was revoked already, at [0-9:]{{8}}Z", again)


@pytest.mark.parametrize(
    ("line", "ended"),
    [
        (("--owner", "bulk"), {"bulk-a", "bulk-b"}),
        (("--owner", "BULK"), {"bulk-a", "bulk-b"}),
        (("--scope", "read:contacts"), {"bulk-b", "bulk-c"}),
        (("--owner", "bulk", "--scope", "read:contacts"), {"bulk-b"}),
    ],
)
def test_revoke_by_owner_and_scope_lists_and_ends_those_alone(
    av: Run, line: tuple[str, ...], ended: set[str]
) -> None:
    """Both together mean agents of that owner with that scope; nothing ends unasked."""
    every = {"bulk-a": ("bulk", "read:calendar"), "bulk-b": ("bulk", "read:contacts")}
    every["bulk-c"] = ("other-owner", "read:contacts")
    for name, (owner, scope) in every.items():
        if av("agents", "show", name).code:
            av("agents", "add", name, "--owner", owner, "--scope", scope)
    try:
        refused = av("revoke", *line)
        assert refused.code == 1
        assert "needs a yes" in refused.err
        assert all(name in refused.out for name in ended)
        assert f"{len(ended)} agent" in refused.out
        planned = av("revoke", *line, "--plan", "--json").json["agents"]
        assert {one["name"] for one in planned} == ended
        assert {standing_of(av, name) for name in every} == {"active"}
        done = av("revoke", *line, "--yes", "--reason", "gone", "--json")
        assert done.code == 0
        assert {one["agent"]["name"] for one in done.json["revoked"]} == ended
        for name in every:
            assert standing_of(av, name) == ("revoked" if name in ended else "active")
        assert av("revoke", *line, "--yes").code == 4
    finally:
        for name in ended:
            av("agents", "restore", name)


def test_a_scope_that_is_granted_for_a_time_ends_by_itself(
    av: Run, agent: Agent
) -> None:
    """The broker takes it, with nobody asking; a bad time changes nothing."""
    for bad in ("0", "367d", "soon", "-1"):
        line = ("agents", "grant", agent.name, "read:contacts", f"--for={bad}")
        assert av(*line).code == 2
    before = av("agents", "show", agent.name, "--json").json["scopes"]
    line = ("agents", "grant", agent.name, "read:contacts", "--for", "1s", "--json")
    assert "read:contacts" in av(*line).json["scopes"]
    until = time.monotonic() + PATIENT
    while (now := av("agents", "show", agent.name, "--json").json["scopes"]) != before:
        assert time.monotonic() < until, now


def standing_of(av: Run, name: str) -> str:
    return str(av("agents", "show", name, "--json").json["status"])


@pytest.mark.parametrize(
    "line", [("some-agent", "--owner", "o"), ("--all", "--scope", "read:email")]
)
def test_revoke_takes_one_way_to_choose(av: Run, line: tuple[str, ...]) -> None:
    """An owner or a scope beside an id, or beside all, exits 2."""
    assert av("revoke", *line, "--yes").code == 2
    refused = av("revoke", "one", "another")
    assert (refused.code, "for several give --owner or --scope" in refused.err) == (
        2,
        True,
    )


def test_revoke_without_a_broker_says_that_nothing_is_revoked(
    cli: Run, tmp_path: Path
) -> None:
    """It names the command that works then, and exits 3."""
    for words in (("coder",), ("--owner", "o", "--yes")):
        answer = cli("--home", str(tmp_path / "h"), "revoke", *words)
        assert answer.code == 3
        assert "NOT revoked: no broker" in answer.err
        assert "`agentvault panic` works without a broker" in answer.err


def test_agents_revoke_all_stops_every_agent_until_restore_all(
    av: Run, agent: Agent
) -> None:
    """`revoke --all` stops every agent until `restore --all`; commands still work."""
    stopped = av("agents", "revoke", "--all", "--reason", "drill", "--json")
    try:
        assert stopped.json["agents"] >= 1
        assert "agent" not in stopped.json
        assert agent.ask("read:calendar", {})["reason"] == "panic"
        assert standing(av, agent) == "stopped"
        not_revoked = av("agents", "restore", agent.name).out
        assert "is stopped by the panic, not revoked" in not_revoked
        av("agents", "revoke", agent.name)
        assert standing(av, agent) == "revoked"
        again = av("panic").out
        assert re.match(r"everything was stopped already, since [0-9:]{8}Z by ", again)
    finally:
        lifted = av("agents", "restore", "--all")
    assert lifted.code == 0
    try:
        every = r"stopped every agent: (\d+) of (\d+) \((\d+) revoked already\)"
        found = re.match(every, av("panic").out)
    finally:
        assert av("lift-panic").code == 0
    served, total, revoked = map(int, found.groups() if found else ())
    assert (served + revoked, revoked >= 1) == (total, True)
    assert av("agents", "restore", agent.name).code == 0
    assert standing(av, agent) == "active"
    assert "access_token" in agent.ask("read:calendar", {})


def standing(av: Run, agent: Agent) -> str:
    """Return the column STATUS of an agent's row, by the place of its heading."""
    heading, *rows = av("agents", "list").out.splitlines()
    (row,) = [row for row in rows if row.startswith(f"{agent.name} ")]
    begin, end = heading.index("STATUS"), heading.index("TOKENS")
    return row[begin:end].strip()


def test_show_of_a_revoked_agent_tells_what_that_cut(av: Run, agent: Agent) -> None:
    """Not what a revoke would cut; revoked again, the first one's words stand."""
    agent.ask("read:calendar", {})
    av("agents", "revoke", agent.name, "--reason", "runaway")
    av("agents", "revoke", agent.name, "--reason", "again")
    said = " ".join(av("agents", "show", agent.name).out.split())
    assert "that cut 1 token, 0 step-ups" in said
    assert ": runaway" in said
    assert "again" not in said
    assert "Revoking ends" not in said
    av("agents", "restore", agent.name)
    assert "Revoking ends 0 tokens" in " ".join(
        av("agents", "show", agent.name).out.split()
    )


def test_scopes_are_named_as_arguments_or_by_option(av: Run, agent: Agent) -> None:
    """`agents add` takes --scope, so grant and ungrant take it too."""
    granted = av("agents", "grant", agent.name, "--scope", "read:contacts", "--json")
    assert "read:contacts" in granted.json["scopes"]
    taken = av("agents", "ungrant", agent.name, "--scope", "read:contacts", "--json")
    assert "read:contacts" not in taken.json["scopes"]
    nothing = av("agents", "grant", agent.name)
    assert nothing.code == 2
    assert "no scope was named" in nothing.err


def test_grant_and_ungrant(av: Run, agent: Agent) -> None:
    """Scopes come and go; one that was not granted cannot be taken away."""
    granted = av("agents", "grant", agent.name, "read:contacts", "read:email", "--json")
    assert set(granted.json["scopes"]) >= {"read:contacts", "read:email"}
    taken = av("agents", "ungrant", agent.name, "read:contacts,read:email", "--json")
    assert taken.json["scopes"] == ["read:calendar", "send:payment"]
    again = av("agents", "ungrant", agent.name, "read:contacts")
    assert again.code == 4
    assert av("agents", "grant", agent.name, "reed:contacts").code == 2


@pytest.mark.parametrize("json_mode", [True, False])
def test_hostile_text_arrives_inert(av: Run, json_mode: bool) -> None:
    """What an agent's purpose holds reaches no terminal as it is."""
    name = f"hostile-{json_mode}"
    line = ("agents", "add", name, "--owner", "olga", "--purpose", HOSTILE)
    extra = ("--json",) if json_mode else ()
    assert av(*line, "--scope", "read:email", *extra).code == 0
    for command in (("agents", "list"), ("agents", "show", name)):
        out = av(*command, *extra).out
        assert all(row.isprintable() for row in out.split("\n"))
        if json_mode:
            assert out.isascii()


def test_what_is_elsewhere_is_told_as_plain_mode_tells_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each step, what stays for whom, and until when what is outside works."""
    until = iso(SystemClock().now() + timedelta(minutes=45))
    problem = "no Management API credential here: agentvault auth0 apply"
    revoked: dict[str, Any] = {
        "status": "revoked",
        "connections": [
            {"connection": "workspace", "shared_with": [{"name": "mail-agent"}]}
        ],
        "upstream": [{"step": "vault grant", "status": "pending", "problem": problem}],
    }
    print_elsewhere(Output(), filled(AgentInfo, {**revoked, "outside_until": until}))
    vault_grant, left, outside = capsys.readouterr().out.splitlines()
    assert vault_grant == f"At the tenant: vault grant pending: {problem}."
    assert left == "Stays: workspace, which mail-agent uses too."
    assert re.fullmatch(r"Works until .*Z, in 4\d:\d\d: the last token .*", outside)
    print_elsewhere(Output(), filled(AgentInfo, {"status": "revoked"}))
    assert capsys.readouterr().out.splitlines() == [
        "At the tenant: it had nothing there.",
        "Still works: nothing; all its tokens have ended.",
    ]


def test_a_resource_server_says_what_it_serves(av: Run) -> None:
    """Registered with it, shown with it; without, `add` and the doctor warn."""
    made = av(
        *("agents", "add", "pay-api", "--owner", "o", "--serves", "send:payment"),
        *("--serves", "read:payments", "--resource", "STRIPE:acct_42"),
    )
    assert made.code == 0, made.err
    assert "without --serves" not in made.err
    shown = av("agents", "show", "pay-api").out
    assert "read:payments send:payment" in shown
    assert "stripe:acct_42" in shown
    assert "serves read:payments send:payment" in av("agents", "list").out
    open_api = av("agents", "add", "any-api", "--owner", "o", "--resource-server")
    assert "consumes those meant for other servers" in open_api.err
    found = av("doctor", "--json").json["findings"]
    servers = [one["what"] for one in found if one["area"] == "servers"]
    assert len(servers) == 1
    assert "any-api" in servers[0]
    assert av("agents", "revoke", "any-api").code == 0
    now = av("agents", "serves", "pay-api", "read:files", "--resource", "files:a")
    assert now.code == 0, now.err
    assert "read:files" in now.out
    assert "serves read:files" in av("agents", "list").out
    cleared = av("agents", "serves", "pay-api", "--all", "--json").json
    assert cleared["serves"] == cleared["resources"] == []
    assert av("agents", "serves", "pay-api").code == 2
    # A shell's variable that is not set asks for nothing, and never for everything.
    for empty in ("", " ", ","):
        assert av("agents", "serves", "pay-api", empty).code == 2
        narrow = ("--resource", "files:a")
        assert av("agents", "serves", "pay-api", empty, *narrow).code == 2
        named = ("agents", "add", "y", "--owner", "o", "--resource-server")
        assert av(*named, "--serves", empty).code == 2
    assert av("agents", "serves", "pay-api", "read:files", "--all").code == 2
    wrong = av("agents", "add", "x", "--owner", "o", "--serves", "send:paymnt")
    assert wrong.code == 2
    assert "send:payment" in wrong.err


@pytest.mark.slow
def test_delegates_and_tree_say_who_holds_what_of_whom(
    av: Run, agent: Agent, broker: Broker
) -> None:
    """What an operator allows is passed on, shown as a tree, and ended by --remove."""
    line = ("agents", "add", "tree-holder", "--owner", "o", "--scope", "read:contacts")
    other = av(*line, "--json").json
    allow = ("agents", "delegates", agent.id, "--to", other["id"])
    assert av(*allow).code == 2
    changed = av(*allow, "--scope", "read:calendar", "--json").json
    assert changed["delegates"][0]["scopes"] == ["read:calendar"]
    mine = agent.ask("read:calendar", {})
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": mine["access_token"],
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "audience": other["client_id"],
    }
    url, pair = f"{broker.url}/oauth/token", (agent.id, agent.secret)
    given = httpx.post(url, data=form, auth=pair, trust_env=False).json()
    assert given["scope"] == "read:calendar"
    tree = av("agents", "tree", agent.id, "--json").json
    assert [(t["depth"], t["below"]) for t in tree["tokens"]] == [(0, 1), (1, 0)]
    text = av("agents", "tree", agent.id).out
    assert "  tree-holder" in text
    assert "may pass on to" in av(*allow, "--scope", "read:calendar").out
    ended = av(*allow, "--remove", "--json").json
    assert ended["delegated_revoked"] == 1
    assert av("agents", "tree", agent.id, "--json").json["tokens"] == []


def test_a_new_secret_works_and_the_old_one_does_not(av: Run, agent: Agent) -> None:
    """`secret new --json` prints what `add` does; the secret before is refused."""
    old = agent.secret
    made = av("agents", "secret", "new", agent.name, "--json").json
    assert made.keys() == {"id", "client_id", "client_secret"}
    form = {"grant_type": "client_credentials", "scope": "read:calendar"}
    for secret, status in ((old, 401), (made["client_secret"], 200)):
        answer = httpx.post(
            f"{agent.broker.url}/oauth/token",
            data=form,
            auth=(agent.id, secret),
            trust_env=False,
        )
        assert answer.status_code == status


@pytest.mark.slow
def test_templates_and_ends_on_the_command_line(av: Run) -> None:
    """Made, shown with what ends when and with what, planned, and revoked together."""
    line = ("agents", "add", "cli-template", "--owner", "o", "--scope", "read:email")
    made = av(*line, "--template", "--json").json
    assert made.keys() == {"id", "client_id"}
    for name in ("cli-one", "cli-two"):
        more = ("--from", "cli-template", "--until", "3h")
        added = av("agents", "add", name, *more, "--json").json
        assert added.keys() == {"id", "client_id", "client_secret"}
    shown = av("agents", "show", "cli-one", "--json").json
    assert (shown["from"], shown["owner"], shown["scopes"]) == (
        made["id"],
        "o",
        ["read:email"],
    )
    rows = av("agents", "list").out.splitlines()
    (row,) = [row for row in rows if "cli-one" in row]
    assert "active, ends in 2:5" in row
    (row,) = [row for row in rows if "cli-template" in row]
    assert "template" in row.replace("cli-template", "")
    assert "made from " in av("agents", "show", "cli-one").out
    whole = av("agents", "show", "cli-template").out
    assert "cli-one, cli-two" in whole
    assert "none" not in whole.partition("made from it")[2].partition("\n")[0]
    assert whole.count("made from it") == 1
    plan = av("agents", "revoke", "cli-template", "--plan").out
    assert "2 agents made from it:" in plan
    assert "cli-two" in plan
    assert av("agents", "show", "cli-one", "--json").json["status"] == "active"
    told = av("agents", "revoke", "cli-template").out
    assert "2 agents made from it" in told
    assert av("agents", "show", "cli-one", "--json").json["status"] == "revoked"
    rows = av("agents", "list").out.splitlines()
    assert " ends " not in next(row for row in rows if "cli-one" in row)
    assert av("agents", "restore", "cli-one").code == 1
    av("agents", "restore", "cli-template")
    assert av("agents", "restore", "cli-one", "--until", "+2h").code == 0
    again = av("agents", "show", "cli-one").out
    assert "in 1:59:" in again


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (("--scope", "read:email"), 2, "give --owner"),
        (("--owner", "o", "--scope", "read:email", "--until", "soon"), 2, "not a time"),
        (
            ("--owner", "o", "--scope", "read:email", "--until", "2020-01-01"),
            2,
            "is over",
        ),
        (("--from", "nobody"), 4, "nobody"),
        (("--owner", "o", "--scope", "read:email", "--subject", "x"), 2, "ISSUER"),
        (
            ("--owner", "o", "--scope", "read:email", "--subject", "ci:repo:a/b:x"),
            2,
            "no issuer is called ci",
        ),
        (
            (
                "--owner",
                "o",
                "--scope",
                "read:email",
                "--template",
                "--resource-server",
            ),
            2,
            "a template neither",
        ),
    ],
)
def test_what_cannot_be_added_says_why(
    av: Run, given: tuple[str, ...], code: int, words: str
) -> None:
    """One line that says what is wrong, and its exit code."""
    answer = av("agents", "add", "cannot-be", *given)
    assert answer.code == code, answer.err
    assert words in answer.err


@pytest.mark.slow
def test_set_rate_says_how_often_an_agent_is_permitted(av: Run, agent: Agent) -> None:
    """A number, none, or the usual one; anything else is exit 2."""
    set_rate = ("agents", "set-rate", agent.id)
    assert "500 a second" in av(*set_rate, "500").out
    assert av("agents", "show", agent.id, "--json").json["decisions_a_second"] == 500
    assert "500" in av("agents", "show", agent.id).out
    assert "any number a second" in av(*set_rate, "0").out
    usual = av(*set_rate, "default", "--json")
    assert usual.json["decisions_a_second"] is None, usual.err
    for odd in ("", "x", "1.5", "1000001"):
        assert av(*set_rate, odd).code == 2
