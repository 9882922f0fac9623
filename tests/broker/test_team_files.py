"""Services, MCP servers, hosts and alerts in force are a team's; homes have copies."""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.postgres import Database
from support.team_members import Member, member, seen

from agentvault_tui.broker.policy_files import MAX_FILE
from agentvault_tui.broker.team_files import _parts
from agentvault_tui.broker.usecases.apply import apply_files
from agentvault_tui.home import Home
from agentvault_tui.model import Actor, sha256_hex
from agentvault_tui.operator_api.files import FilesRequest
from agentvault_tui.policy.texts import FILES, shipped_policy, shipped_scopes
from agentvault_tui.web.local_ca import CaFiles, renew

API = "services/api.toml"


def service(name: str) -> str:
    return f'origin = "https://{name}.test"\n'


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (API, service("one")),
        ("mcp/tickets.toml", 'url = "https://mcp.test/mcp"\n'),
        ("hosts/claude-code.toml", 'unmatched = "read:files"\n'),
        ("alerts.toml", '[sinks.siem]\nkind = "file"\npath = "siem.jsonl"\n'),
    ],
)
async def test_an_edit_at_one_home_holds_at_the_other(
    a: Member, b: Member, file: str, text: str
) -> None:
    """It is recorded once, and is in force and in the copies until it is removed."""
    a.path(file).write_text(text)
    await a.look()
    await seen(b)
    for one in (a, b):
        assert one.files.text(file) == one.says(file) == text
        there = [*one.gateway.services, *one.gateway.mcp_servers, *one.gateway.tools]
        sinks = one.watch.alerts.file.sinks
        assert [item.sha256 for item in there] == [sha256_hex(text)] or "siem" in sinks
    assert await b.changes() == [("added", file)]
    b.path(file).unlink()
    await b.look()
    await seen(a)
    for one in (a, b):
        assert one.files.text(file) is None
        assert one.says(file) is None
        assert not [*one.gateway.services, *one.gateway.mcp_servers]
        assert not one.watch.alerts.file.sinks
    assert await a.changes() == [("added", file), ("removed", file)]


async def test_another_broker_s_change_is_in_force_before_anything_later_is_known(
    a: Member, b: Member
) -> None:
    """No look of the second's upkeep has to come before: what follows waits for it."""
    a.path(API).write_text(service("one"))
    await a.look()
    await b.bench.ledger.confirm()
    assert b.origin() == "https://one.test"
    a.path(API).write_text(service("two"))
    await a.look()
    await b.bench.ledger.confirm()
    assert b.origin() == "https://two.test"


async def test_of_two_edits_at_once_one_wins_and_the_other_is_kept_beside(
    a: Member, b: Member
) -> None:
    """The loser is warned of where it was made, and comes into force nowhere."""
    a.path(API).write_text(service("zero"))
    await a.look()
    await seen(b)
    for one, name in ((a, "one"), (b, "two")):
        one.path(API).write_text(service(name))
    await asyncio.gather(a.look(), b.look())
    await seen(a, b, a)
    assert a.origin() == b.origin() in {"https://one.test", "https://two.test"}
    lost, won = ("two", "one") if a.origin() == "https://one.test" else ("one", "two")
    loser, winner = (b, a) if lost == "two" else (a, b)
    assert a.says(API) == b.says(API) == service(won)
    assert loser.says(f"{API}.local") == service(lost)
    assert winner.says(f"{API}.local") is None
    assert f"{API}.local is an edit that another broker" in loser.warnings
    assert ".local" not in winner.warnings
    assert [word for word, _ in await a.changes()] == ["added", "changed"]
    loser.path(f"{API}.local").unlink()
    await loser.look()
    assert ".local" not in loser.warnings


async def test_a_broken_edit_is_in_force_nowhere(a: Member, b: Member) -> None:
    """It is warned of where it was made; mended it counts, overtaken it is kept."""
    a.path(API).write_text(service("one"))
    await a.look()
    await seen(b)
    a.path(API).write_text('origin = "nonsense"\n')
    await a.look()
    await seen(b)
    assert a.origin() == b.origin() == "https://one.test"
    assert b.says(API) == service("one")
    assert "services/api.toml is not in force as this home has it" in a.warnings
    assert a.gateway.services.problems.keys() == {"api.toml"}
    assert "services/api.toml" not in b.warnings
    a.path(API).write_text(service("mended"))
    await a.look()
    await seen(b)
    assert a.origin() == b.origin() == "https://mended.test"
    assert "services/api.toml" not in a.warnings
    a.path(API).write_text("broken again")
    await a.look()
    b.path(API).write_text(service("two"))
    await b.look()
    await seen(a)
    assert a.says(API) == service("two")
    assert a.says(f"{API}.local") == "broken again"
    assert len(await a.changes()) == 3


async def test_a_home_that_was_away_takes_what_others_changed(
    a: Member, homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """What it edited meanwhile counts where nobody else edited, else it is kept."""
    for name in ("api", "gone", "own", "lost"):
        a.path(f"services/{name}.toml").write_text(service(name))
    await a.look()
    async with member(homes[2], clock, store) as c:
        assert c.says("services/own.toml") == service("own")
    a.path(API).write_text(service("changed"))
    a.path("services/gone.toml").unlink()
    a.path("services/lost.toml").write_text(service("won"))
    await a.look()
    c.path("services/own.toml").write_text(service("mine"))
    c.path("services/lost.toml").write_text(service("late"))
    c.path("services/new.toml").write_text(service("new"))
    async with member(homes[2], clock, store) as c:
        await seen(a)
        for one in (a, c):
            assert {item.name: str(item.origin) for item in one.gateway.services} == {
                "api": "https://changed.test",
                "own": "https://mine.test",
                "lost": "https://won.test",
                "new": "https://new.test",
            }
            assert one.says("services/gone.toml") is None
            assert one.says("services/lost.toml") == service("won")
        assert c.says("services/lost.toml.local") == service("late")


@pytest.mark.parametrize("file", ["policy.cedar", "scopes.toml", "limits.toml"])
async def test_policy_files_edited_while_a_broker_is_down_count_as_others_do(
    a: Member, homes: list[Home], clock: ManualClock, store: Database, file: str
) -> None:
    """An edit counts where the team decided nothing since, else it is kept beside."""
    shipped = {"policy.cedar": shipped_policy(), "scopes.toml": shipped_scopes()}
    first, mine, won = (f"{shipped.get(file, '')}# {n}\n" for n in ("one", "c", "a"))
    if file == "policy.cedar":
        first, mine, won = (
            text.replace("\n# ", "\n// ") for text in (first, mine, won)
        )

    def in_force(one: Member) -> str | None:
        broker = one.bench.broker
        return dict(zip(FILES, broker.deciding.policy.texts, strict=True))[file]

    a.path(file).write_text(first)
    await a.look()
    async with member(homes[2], clock, store) as c:
        assert c.says(file) == in_force(c) == first
    c.path(file).write_text(mine)
    async with member(homes[2], clock, store) as c:
        await seen(a)
        assert in_force(a) == in_force(c) == a.says(file) == c.says(file) == mine
        assert ".local" not in c.warnings
    a.path(file).write_text(won)
    await a.look()
    c.path(file).write_text(first)
    async with member(homes[2], clock, store) as c:
        await seen(a)
        assert in_force(a) == in_force(c) == a.says(file) == c.says(file) == won
        assert c.says(f"{file}.local") == first
        assert f"{file}.local is an edit that another broker" in c.warnings
    c.path(file).unlink()
    async with member(homes[2], clock, store) as c:
        assert c.says(file) == in_force(a) == won
    changes = await a.bench.events("policy.changed")
    assert len(changes) == 3


async def test_a_policy_file_edited_at_night_that_is_broken_is_in_force_nowhere(
    a: Member, homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """The broker starts with the team's, and says what is wrong until it is mended."""
    a.path("policy.cedar").write_text(f"{shipped_policy()}// one\n")
    await a.look()
    async with member(homes[2], clock, store) as c:
        before = c.bench.broker.deciding.policy.version
    c.path("policy.cedar").write_text("permit (")
    async with member(homes[2], clock, store) as c:
        assert c.bench.broker.deciding.policy.version == before
        assert c.bench.broker.deciding.state.problem is not None
        assert "The policy on disk cannot be put in force" in c.warnings
        await seen(a, c)
        assert c.says("policy.cedar") == "permit ("
        assert a.bench.broker.deciding.policy.version == before
        c.path("policy.cedar").write_text(f"{shipped_policy()}// mended\n")
        await c.look()
        assert c.bench.broker.deciding.state.problem is None
        await seen(a)
    assert a.says("policy.cedar") == f"{shipped_policy()}// mended\n"
    assert len(await a.bench.events("policy.changed")) == 2


async def test_a_row_named_like_a_policy_file_is_in_no_copy(
    a: Member, b: Member
) -> None:
    """What these files say is recorded elsewhere, and checked when it is taken."""
    drafts, changes = a.files.change({"limits.toml": "# not ours\n"}, OPERATOR)
    await a.bench.ledger.commit(*drafts, changes=changes)
    await seen(a, b)
    assert a.says("limits.toml") is b.says("limits.toml") is None
    assert a.files.text("limits.toml") is None


async def test_a_file_is_in_force_however_long_ago_it_was_recorded(
    a: Member, homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """Its event is found behind a thousand of other files."""
    a.path(API).write_text(service("one"))
    await a.look()
    drafts, _ = a.files.change({"services/other.toml": None}, OPERATOR)
    await a.bench.ledger.commit(*drafts * 1001)
    async with member(homes[2], clock, store) as c:
        assert c.origin() == "https://one.test"


async def test_an_edit_is_recorded_once_the_catalogue_has_its_scope(
    a: Member, b: Member
) -> None:
    """It is checked again where that changed; nobody edits it anew."""
    route = '[[routes]]\nmethod = "GET"\npath = "/x"\nscope = "read:new"\n'
    a.path(API).write_text(service("one") + route)
    await a.look()
    assert "unknown scope 'read:new'" in a.warnings
    scopes = shipped_scopes().replace('"read:files"', '"read:new"')
    a.home.scopes_file.write_text(scopes)
    await a.look()
    await seen(a, a, b)  # the first look finds the other catalogue
    assert b.origin() == "https://one.test"


BOATS = """[scopes."read:boats"]
description = "See the boats."
risk = "low"
revoking = "Stops it."
"""


async def test_own_scopes_are_the_teams(a: Member, b: Member) -> None:
    """A file that one home gets is in each home, and removed from each likewise."""
    file = "scopes.d/boats.toml"
    a.path(file).write_text(BOATS)
    await a.look()
    await seen(a, b)
    for one in (a, b):
        assert "read:boats" in one.bench.broker.deciding.policy.catalogue
        assert one.says(file) == BOATS
    b.path(file).unlink()
    await b.look()
    await seen(b, a)
    for one in (a, b):
        assert "read:boats" not in one.bench.broker.deciding.policy.catalogue
        assert one.says(file) is None


async def test_broken_own_scopes_are_in_no_home_but_one(a: Member, b: Member) -> None:
    """The home that has them says so; the team decides as before."""
    version = a.bench.broker.deciding.policy.version
    a.path("scopes.d/boats.toml").write_text(BOATS.replace("low", "lowest"))
    await a.look()
    await seen(a, b)
    for one in (a, b):
        assert one.bench.broker.deciding.policy.version == version
    assert "boats.toml line 1" in str(a.bench.broker.deciding.state.problem)
    assert b.says("scopes.d/boats.toml") is None


async def test_a_row_that_is_too_large_is_not_in_force(a: Member, b: Member) -> None:
    """No home could have it; whoever recorded it is no broker of ours."""
    large = service("one") + "#" * MAX_FILE
    drafts, changes = a.files.change({API: large}, OPERATOR)
    await a.bench.ledger.commit(*drafts, changes=changes)
    await seen(a, b)
    for one in (a, b):
        assert (one.origin(), one.says(API)) == (None, None)
        assert "larger than 256 KiB" in one.warnings


def test_many_edits_are_recorded_in_parts() -> None:
    """No commit carries much more than a MiB."""
    edits = {f"services/{n}.toml": "x" * 400_000 for n in range(7)}
    parts = list(_parts(edits))
    assert [len(one) for one in parts] == [3, 3, 1]
    assert dict(pair for one in parts for pair in one.items()) == edits


async def test_copies_that_are_gone_at_a_start_are_written_again(
    a: Member, homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """A disk that was lost removes nothing from the team, nor does a lost folder."""
    a.path(API).write_text(service("one"))
    await a.look()
    async with member(homes[2], clock, store) as c:
        assert c.says(API) == service("one")
    shutil.rmtree(c.path("services"))
    async with member(homes[2], clock, store) as c:
        assert c.says(API) == service("one")
        shutil.rmtree(c.path("services"))
        await c.look()
        assert c.origin() == "https://one.test"
        assert "services is not in force as this home has it: the folder" in c.warnings
    assert len(await a.changes()) == 1


async def test_a_home_that_joins_takes_the_team_s_files(
    a: Member, homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """Files of its own are kept beside: none of them comes into force by joining."""
    a.path(API).write_text(service("one"))
    await a.look()
    for name in ("api", "own"):
        homes[2].config.joinpath(f"services/{name}.toml").write_text(service("c"))
    async with member(homes[2], clock, store) as c:
        assert [item.name for item in c.gateway.services] == ["api"]
        assert c.origin() == "https://one.test"
        assert c.says(f"{API}.local") == service("c")
        assert c.says("services/own.toml") is None
        assert c.says("services/own.toml.local") == service("c")
        c.path("services/own.toml.local").rename(c.path("services/own.toml"))
        await c.look()
    await seen(a)
    assert a.origin("own") == "https://c.test"


async def test_the_first_home_s_files_become_the_team_s(
    homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """However many there are."""
    for number in range(40):
        file = homes[0].config / f"services/s{number}.toml"
        file.write_text(service(f"s{number}"))
    async with member(homes[0], clock, store) as a:
        assert len([*a.gateway.services]) == 40
        async with member(homes[1], clock, store) as b:
            assert b.files.folder("services") == a.files.folder("services")
            assert b.says("services/s39.toml") == service("s39")
        assert len(await a.changes()) == 40


async def test_a_broker_killed_before_it_wrote_its_copies_writes_them_at_the_next_start(
    a: Member, homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """What is in force is the row; the old copy is not taken for an edit."""
    a.path(API).write_text(service("one"))
    await a.look()
    async with member(homes[2], clock, store) as c:
        a.path(API).write_text(service("two"))
        await a.look()
        await c.bench.ledger.confirm()  # and no look comes after
        assert c.origin() == "https://two.test"
        assert c.says(API) == service("one")
    async with member(homes[2], clock, store) as c:
        assert c.origin() == "https://two.test"
        assert c.says(API) == service("two")
        assert c.says(f"{API}.local") is None
    assert len(await a.changes()) == 2


def files_below(folder: Path) -> set[Path]:
    return {one for one in folder.rglob("*") if "agentvault.db" not in one.name}


def put_row(store: Database, path: str, text: str) -> None:
    """Write a file's row into the store, as no broker does."""
    ((n,),) = store.run("SELECT n + 1 FROM agentvault.head")
    row = json.dumps([f"app:file:{path}", text, n])
    store.run(
        "INSERT INTO agentvault.state VALUES ('meta', %s, %s, 1, NULL, %s)"
        " ON CONFLICT (kind, key) DO UPDATE SET n = excluded.n, doc = excluded.doc",
        f"app:file:{path}",
        n,
        row.encode(),
    )
    store.run(
        "UPDATE agentvault.head SET revision = revision + 1, n = %s,"
        " batch = gen_random_uuid()",
        n,
    )
    store.run(
        "UPDATE agentvault.state SET revision = (SELECT revision FROM agentvault.head)"
        " WHERE key = %s",
        f"app:file:{path}",
    )


@pytest.mark.parametrize(
    "path",
    [
        "../evil.toml",
        "services/../../evil.toml",
        "services/..toml",
        "services/sub/evil.toml",
        "services/Evil.toml",
        "services/evil.toml.local",
        "services",
        "config.toml",
        "policy.cedar",
        "keys/evil.toml",
        "alerts.toml/evil.toml",
        "/evil.toml",
        "",
    ],
)
async def test_a_row_that_names_no_file_of_a_home_writes_none(
    a: Member, short: Path, store: Database, path: str
) -> None:
    """It is in force nowhere, and warned of."""
    before = files_below(short)
    put_row(store, path, service("evil"))
    await seen(a)
    assert files_below(short) <= before | {a.home.start_space}  # made meanwhile
    assert a.files.text(path) is None
    assert "it is no file that a home may have" in a.warnings


async def test_a_row_that_no_event_names_is_not_in_force(
    a: Member, store: Database, homes: list[Home], clock: ManualClock
) -> None:
    """Nor is it written; whoever edits the file anew puts the store right."""
    a.path(API).write_text(service("one"))
    await a.look()
    put_row(store, API, service("evil"))
    await seen(a)
    assert a.origin() is None
    assert a.says(API) == service("one")
    assert "another text than its events name" in a.warnings
    async with member(homes[2], clock, store) as c:
        assert c.origin() is None
        assert c.says(API) is None
        a.path(API).write_text(service("two"))
        await a.look()
        await seen(c)
        assert a.origin() == c.origin() == "https://two.test"
        assert c.says(API) == service("two")


async def test_a_file_that_is_too_large_is_in_force_nowhere(
    a: Member, store: Database
) -> None:
    """Neither an edit of it, nor a row."""
    a.path(API).write_text(service("one") + "#" * 300_000)
    await a.look()
    assert a.files.text(API) is None
    assert f"{API} is not in force as this home has it" in a.warnings
    a.path(API).unlink()
    put_row(store, API, "#" * 300_000)
    await seen(a)
    assert a.files.text(API) is None
    assert a.says(API) is None
    assert await a.changes() == []


async def test_what_a_symbolic_link_points_to_is_not_written(
    a: Member, b: Member, short: Path
) -> None:
    """What is in force follows the store; the link stays, with a warning."""
    outside = short / "outside.toml"
    outside.write_text(service("one"))
    a.path(API).symlink_to(outside)
    await a.look()
    await seen(b)
    assert b.origin() == "https://one.test"
    b.path(API).write_text(service("two"))
    await b.look()
    await seen(a)
    assert a.origin() == "https://two.test"
    assert outside.read_text() == service("one")
    assert a.path(API).is_symlink()
    assert "it is a symbolic link" in a.warnings
    outside.write_text(service("two"))
    await a.look()
    assert "symbolic" not in a.warnings
    outside.unlink()
    await a.look()
    await seen(b)
    assert b.origin() == "https://two.test"


async def test_an_edit_that_is_made_while_copies_are_written_is_kept(
    a: Member, b: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is written only where it is as it was read."""
    a.path(API).write_text(service("one"))
    await seen(a, b)
    b.path(API).write_text(service("two"))
    await b.look()
    write = a.files.copies._write

    def edited(*args: Any, **more: Any) -> dict[str, str]:
        a.path(API).write_text(service("mine"))
        return write(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(a.files.copies, "_write", edited)
        await seen(a)
    await seen(a)
    assert a.says(API) == service("two")
    assert a.says(f"{API}.local") == service("mine")


async def test_a_file_that_cannot_be_in_force_here_leaves_nothing_in_force_here(
    a: Member, b: Member
) -> None:
    """What it said before is in force nowhere in the team any more."""
    a.path(API).write_text(service("one"))
    await a.look()
    await b.bench.ledger.confirm()
    renew(a.home, now=datetime.now(UTC))
    ca = CaFiles.of(a.home).ca.relative_to(a.home.config)
    a.path(API).write_text(f'{service("two")}ca_file = "{ca}"\n')
    await a.look()
    await seen(b)
    assert a.origin() == "https://two.test"
    assert b.origin() is None
    assert "services/api.toml cannot be put in force, nothing of it is" in b.warnings
    assert a.files.version() != b.files.version()  # which each tells the others
    a.path(API).write_text(service("three"))
    await a.look()
    await seen(b)
    assert a.files.version() == b.files.version()


async def test_services_that_are_applied_at_one_home_hold_at_the_other(
    a: Member, b: Member
) -> None:
    """They are recorded with the operator, and are in force and in the copies."""
    wanted = FilesRequest(services={"api": service("one")})

    async def who(_: bool) -> Actor:
        return OPERATOR

    done = await apply_files(a.bench.broker, wanted, who)
    assert a.origin() == "https://one.test"
    assert a.says(API) == service("one")
    await seen(b)
    assert b.origin() == "https://one.test"
    assert b.says(API) == service("one")
    (event,) = await b.bench.events("service.changed")
    assert event.actor == OPERATOR
    assert event.detail["applied"] == done.plan.digest


async def test_an_edit_made_while_the_store_is_away_counts_once_it_is_back(
    homes: list[Home], clock: ManualClock, own_store: Database
) -> None:
    """Until then what was in force stays so."""
    async with member(homes[0], clock, own_store) as a:
        a.path(API).write_text(service("one"))
        await a.look()
        with own_store.cluster.stopped():
            a.path(API).write_text(service("two"))
            await a.look()
            assert a.origin() == "https://one.test"
            assert a.says(API) == service("two")
        async with asyncio.timeout(PATIENT):
            while a.origin() != "https://two.test":
                await a.look()
                await asyncio.sleep(0.05)
        assert [word for word, _ in await a.changes()] == ["added", "changed"]
