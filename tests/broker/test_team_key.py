"""The team's key is made once, brought to every home, and changed without a gap."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.postgres import Database
from support.team_brokers import Broker, brokers_of, known

from agentvault_tui.broker import team_key
from agentvault_tui.broker.follow import join_team
from agentvault_tui.broker.riders import Rider, ride
from agentvault_tui.broker.team import Team
from agentvault_tui.broker.team_key import TEAM_KEY, KeyRecord, TeamKey
from agentvault_tui.broker.tenant_process import team_client_id
from agentvault_tui.broker.vault_access import VaultUser, VaultUsers, VaultUsersSeal
from agentvault_tui.errors import ConflictError, LedgerError, SealedError, UsageError
from agentvault_tui.gateway.gateway import Gateway
from agentvault_tui.home import Home, put_private
from agentvault_tui.ledger import Ledger, Meta
from agentvault_tui.ledger.state import read_meta
from agentvault_tui.model import AgentId, Draft
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.sealing import key_ids, team_keys
from agentvault_tui.vault import Secret

ANN = AgentId("agt_ann")
VALUE = "sk_live_4242"
HERE = ServerOrigin("https", "api.test", 443)


@pytest.fixture
async def brokers(
    short: Path, store: Database, clock: ManualClock
) -> AsyncIterator[list[Broker]]:
    """Two brokers of the team, each with a home and a gateway of its own."""
    async with brokers_of(short, [clock] * 2, [store.settings] * 2) as made:
        for one in made:
            one.bench.broker.extensions.gateway = Gateway(one.bench.broker)
            assert one.bench.ledger.shared is not None
            await join_team(one.bench.broker, one.bench.ledger.shared)
        yield made


def key_of(one: Broker) -> TeamKey:
    found = one.bench.broker.team.key
    assert found is not None
    return found


def gateway_of(one: Broker) -> Gateway:
    found = one.bench.broker.extensions.gateway
    assert isinstance(found, Gateway)
    return found


async def look(*brokers: Broker) -> None:
    """Let each broker say what it has, hear of the others, and take the next step."""
    await known(brokers)
    for _ in range(2):
        for one in brokers:
            await key_of(one).look()
            assert isinstance(one.bench.broker.team.brokers, Team)
            await one.bench.broker.team.brokers.join()


def bring(one: Broker, other: Broker) -> None:
    """Bring the keys of one home to another."""
    content = one.bench.home.team_key.read_bytes()
    put_private(other.bench.home.team_key, content, replace=True)


def reasons(one: Broker) -> dict[str, str | None]:
    team = one.bench.broker.team.brokers
    assert team is not None
    return {member.id: why for member, why in team.standing()}


def id_of(one: Broker) -> str:
    return one.bench.home.broker_id_file.read_text().strip()


async def changes(bench: Bench) -> list[str]:
    return [str(one.reason) for one in await bench.events("secret.changed")]


class KilledError(Exception):
    """The process ends here."""


def killed_at_once(*_: object, **__: object) -> None:
    raise KilledError


LACKS = "it has not the team's key: agentvault team key import there"


async def test_a_key_is_changed_while_everything_opens(brokers: list[Broker]) -> None:
    """The old key opens until all have the new one; then all is sealed with that."""
    a, b = brokers
    first = await key_of(a).make(OPERATOR, lost=False)
    assert first.before == ""
    await look(a, b)
    assert reasons(a) == {id_of(a): None, id_of(b): LACKS} == reasons(b)
    assert "agentvault team key import" in (key_of(b).problem or "")
    assert key_of(a).problem is None
    bring(a, b)
    await look(a, b)
    assert set(reasons(a).values()) == {None}
    assert key_of(b).problem is None
    await seal_something(brokers)

    second = await key_of(a).make(OPERATOR, lost=False)
    await look(a, b)
    assert second.before == first.key
    assert key_ids(team_keys(a.bench.home)) == [second.key, first.key]
    assert reasons(b) == {id_of(a): None, id_of(b): LACKS}
    with pytest.raises(ConflictError, match="changing its key already"):
        await key_of(b).make(OPERATOR, lost=False)
    before = [one.bench.home.secrets_file.read_bytes() for one in brokers]
    opens(brokers)

    bring(a, b)
    await look(a, b)
    await look(a, b)
    for one, old in zip(brokers, before, strict=True):
        assert key_ids(team_keys(one.bench.home)) == [second.key]
        assert one.bench.home.secrets_file.read_bytes() != old
        assert key_of(one).problem is None
        record = KeyRecord.read(await one.bench.ledger.read(read_meta, TEAM_KEY))
        assert record == KeyRecord(second.key)
    opens(brokers)
    told = await changes(a.bench)
    assert told.count("team key made") == 2
    assert told.count("team key changed") == 1
    (changed,) = [
        one.detail
        for one in await a.bench.events("secret.changed")
        if one.reason == "team key changed"
    ]
    assert changed.items() >= {"before": first.key, "after": second.key}.items()
    assert VALUE not in str(await a.bench.events())


async def seal_something(brokers: list[Broker]) -> None:
    for one in brokers:
        await known(brokers)  # else the store refuses what was decided before
        secrets = gateway_of(one).secrets
        await secrets.change(
            lambda: secrets.set("api", VALUE, OPERATOR, [str(HERE)]),  # noqa: B023 - awaited here
            one.bench.broker.record,
        )
        user = VaultUser("auth0|ann", "Ann", Secret("refresh"))
        one.bench.broker.reaching.vault.users.keep(ANN, user)


def opens(brokers: list[Broker]) -> None:
    for one in brokers:
        assert gateway_of(one).secrets.open("api", [HERE]).reveal() == VALUE
        kept = one.bench.broker.reaching.vault.users.of(ANN)
        assert kept is not None
        assert kept.refresh_token.reveal() == "refresh"


async def test_brokers_call_their_tenant_by_one_name_that_changes_with_the_key(
    brokers: list[Broker],
) -> None:
    """Whoever has the first key could compute the name: another key makes another."""
    a, b = brokers
    changed: list[Broker] = []
    for one in brokers:

        async def note(broker: Broker = one) -> None:
            changed.append(broker)

        key_of(one).changed = note

    def names() -> set[str]:
        return {team_client_id(one.bench.home) for one in brokers}

    assert len(names()) == 2
    await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    (first,) = names()  # as one that starts now
    await look(a, b)
    assert names() == {first}
    assert set(changed) == {a, b}
    await key_of(a).make(OPERATOR, lost=False)
    assert names() == {first}  # until every broker has the new key
    bring(a, b)
    changed.clear()
    for _ in range(2):
        await look(a, b)
    assert len(team_keys(a.bench.home)) == 1
    (second,) = names()
    assert second != first
    assert set(changed) == {a, b}


async def test_a_broker_that_is_away_keeps_the_old_key(
    brokers: list[Broker], clock: ManualClock
) -> None:
    """As long as one that died may come back, what it can open is not sealed anew."""
    a, b = brokers
    first = await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    await look(a, b)
    second = await key_of(a).make(OPERATOR, lost=False)
    for _ in range(3):
        clock.advance(5)
        await look(a)
    assert key_ids(team_keys(a.bench.home)) == [second.key, first.key]
    bring(a, b)
    await look(b, a)
    await look(b, a)
    assert key_ids(team_keys(a.bench.home)) == [second.key]
    assert key_ids(team_keys(b.bench.home)) == [second.key]


async def test_an_older_export_puts_no_key_before_the_one_in_force(
    brokers: list[Broker],
) -> None:
    """Whoever kept the old key could read what that home sealed from then on."""
    a, b = brokers
    await key_of(a).make(OPERATOR, lost=False)
    (old,) = team_keys(a.bench.home)
    bring(a, b)
    await look(a, b)
    second = await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    await look(a, b)
    await look(a, b)
    (new,) = team_keys(b.bench.home)
    put_private(b.bench.home.team_key, old + new, replace=True)
    await look(b)
    assert key_ids(team_keys(b.bench.home)) == [second.key]
    assert key_of(b).problem is None


async def test_a_key_is_made_in_the_record_of_its_proof(brokers: list[Broker]) -> None:
    """A change that was denied meanwhile makes none, and leaves no file."""
    one = brokers[0].bench
    record = {"by": one.broker.record}

    def denied() -> None:
        raise ConflictError("it was denied meanwhile")

    rider = Rider(OPERATOR, {"kinds": ["team"]}, check=denied)
    with ride(rider), pytest.raises(ConflictError, match="denied"):
        await key_of(brokers[0]).make(OPERATOR, lost=False, **record)
    assert not one.home.team_key_next.exists()
    assert not one.home.team_key.exists()
    with ride(Rider(OPERATOR, {"kinds": ["team"]})) as rider:
        await key_of(brokers[0]).make(OPERATOR, lost=False, **record)
    assert rider.recorded
    (event,) = (each for each in await one.events() if "loosened" in each.detail)
    assert event.reason == "team key made"


async def test_of_two_keys_made_at_once_one_is_the_teams(brokers: list[Broker]) -> None:
    """The other broker says so, and keeps nothing of its own."""
    made = await asyncio.gather(
        *(key_of(one).make(OPERATOR, lost=False) for one in brokers),
        return_exceptions=True,
    )
    (key,) = (one for one in made if isinstance(one, KeyRecord))
    (refused,) = (one for one in made if isinstance(one, ConflictError))
    assert "import" in refused.remedy
    assert [one.bench.home.team_key_next.exists() for one in brokers] == [False, False]
    has = [one.bench.home.team_key.exists() for one in brokers]
    assert sorted(has) == [False, True]
    assert key_ids(team_keys(brokers[has.index(True)].bench.home)) == [key.key]


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_broker_killed_while_it_made_a_key_goes_on_from_there(
    brokers: list[Broker], monkeypatch: pytest.MonkeyPatch, *, recorded: bool
) -> None:
    """A key that the ledger names is put in force at a start, another is removed."""
    a, _ = brokers
    first = await key_of(a).make(OPERATOR, lost=False)

    with monkeypatch.context() as patch:
        if recorded:
            patch.setattr(team_key, "locked_folder", killed_at_once)
        else:
            patch.setattr(Ledger, "commit", killed_at_once)
        with pytest.raises(KilledError):
            await key_of(a).make(OPERATOR, lost=False)
    assert a.bench.home.team_key_next.exists()
    again = TeamKey(a.bench.home, a.bench.ledger, OPERATOR, key_of(a).publish)
    await again.look()
    assert again.problem is None
    assert not a.bench.home.team_key_next.exists()
    there = key_ids(team_keys(a.bench.home))
    assert (there == [first.key]) is not recorded
    assert again.announcement() == (there[0], there[0])


@pytest.mark.parametrize("step", ["sealing", "recording", "removing"])
async def test_a_broker_killed_while_it_seals_anew_goes_on_from_there(
    brokers: list[Broker], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """At whatever step it ends, everything opens, and the change comes to its end."""
    a, b = brokers
    await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    await look(a, b)
    await seal_something([a])
    second = await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    await look(a, b)
    works = key_of(a)
    rooms = list(works.seals_anew)

    async def killed(*_: object, **__: object) -> None:
        raise KilledError

    commit = Ledger.commit

    def recorded(ledger: Ledger, *drafts: Draft, **more: Any) -> Any:
        ends = any(one.reason == "team key changed" for one in drafts)
        return killed() if ends else commit(ledger, *drafts, **more)

    with monkeypatch.context() as patch:
        if step == "sealing":
            works.seals_anew.insert(1, killed)
        elif step == "recording":
            patch.setattr(Ledger, "commit", recorded)
        else:
            patch.setattr(team_key, "put_private", killed_at_once)
        with pytest.raises(KilledError):
            await look(a, b)
    opens([a])
    again = a.bench.broker.team.key = TeamKey(
        a.bench.home, a.bench.ledger, OPERATOR, key_of(a).publish
    )
    again.team, again.seals_anew = works.team, rooms
    await look(a, b)
    await look(a, b)
    opens([a])
    for one in brokers:
        assert key_ids(team_keys(one.bench.home)) == [second.key]
    assert (await changes(a.bench)).count("team key changed") == 1


async def test_a_broker_that_died_counts_for_a_day(
    brokers: list[Broker], store: Database
) -> None:
    """It may come back with what the key before sealed."""
    a, b = brokers
    first = await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    await look(a, b)
    store.run(
        "INSERT INTO agentvault.brokers SELECT 'brk_dead', seen - interval '1 hour',"
        " doc, 'run_dead' FROM agentvault.brokers WHERE id = %s",
        id_of(b),
    )
    second = await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    for _ in range(2):
        await look(a, b)
    assert key_ids(team_keys(a.bench.home)) == [second.key, first.key]
    ago = "seen = seen - interval '23 hours'"
    store.run(f"UPDATE agentvault.brokers SET {ago} WHERE id = 'brk_dead'")
    for _ in range(2):
        await look(a, b)
    assert key_ids(team_keys(a.bench.home)) == [second.key]


async def test_the_key_before_is_kept_until_others_have_what_is_sealed_anew(
    brokers: list[Broker],
) -> None:
    """Operators are told why, and of its end."""
    a, b = brokers
    await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    await look(a, b)
    second = await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    told = list[str | None]()
    a.bench.broker.health.listeners.append(lambda: told.append(key_of(a).problem))
    publish = key_of(a).publish

    async def full() -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    key_of(a).publish = full
    await look(a, b)
    await look(a, b)
    assert len(team_keys(a.bench.home)) == 2
    key_of(a).publish = publish
    await look(a, b)
    assert key_ids(team_keys(a.bench.home)) == [second.key]
    assert [bool(one) for one, _ in groupby(told)] == [False, True, False]
    assert any("no space left" in (one or "") for one in told)


async def test_a_key_made_while_the_store_is_away_is_kept_until_it_is_known(
    brokers: list[Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was recorded is not known then, so it is not removed."""
    a, _ = brokers
    await key_of(a).make(OPERATOR, lost=False)

    async def away(*_: object, **__: object) -> None:
        raise LedgerError("nobody knows")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", away)
        patch.setattr(Ledger, "store_problem", "away")
        with pytest.raises(LedgerError):
            await key_of(a).make(OPERATOR, lost=False)
        await key_of(a).look()
        made = a.bench.home.team_key_next.read_bytes()
        with pytest.raises(ConflictError, match="is not known yet"):
            await key_of(a).make(OPERATOR, lost=False)
        assert a.bench.home.team_key_next.read_bytes() == made
    await key_of(a).look()
    assert not a.bench.home.team_key_next.exists()


async def test_what_a_home_sealed_for_itself_is_sealed_anew_when_it_joins(
    brokers: list[Broker],
) -> None:
    """Its own keys go; what they sealed opens with the team's, here and elsewhere."""
    a, b = brokers
    home, clock = a.bench.home, a.bench.clock
    alone = type(gateway_of(a).secrets)(home, clock)
    alone.set("api", VALUE, OPERATOR, [str(HERE)]).write()
    issuer = a.bench.broker.reaching.vault.issuer
    VaultUsers(home, issuer).keep(ANN, VaultUser("auth0|ann", "Ann", Secret("refresh")))
    assert gateway_of(a).secrets.open("api", [HERE]).reveal() == VALUE
    await key_of(a).make(OPERATOR, lost=False)
    opens([a])
    assert gateway_of(a).secrets.root() == "team"
    assert sorted(path.name for path in home.keys.glob("*.key")) == ["team.key"]
    bring(a, b)
    for name in (home.secrets_file.name, home.vault_users.name):
        content = (home.data / name).read_bytes()
        put_private(b.bench.home.data / name, content, replace=True)
    await look(b)
    opens([b])


async def test_without_the_key_nothing_is_sealed_with_another(
    brokers: list[Broker],
) -> None:
    """A home of a team that has not its key seals nothing, and says what to do."""
    _, b = brokers
    users, user = (
        b.bench.broker.reaching.vault.users,
        VaultUser("sub", "Ann", Secret("refresh")),
    )
    for use in (
        lambda: gateway_of(b).secrets.set("api", VALUE, OPERATOR, [str(HERE)]),
        lambda: users.keep(ANN, user),
    ):
        with pytest.raises(SealedError, match=r"team\.key is not here") as error:
            use()
        assert "agentvault team key import" in error.value.remedy
    assert not list(b.bench.home.keys.glob("*.key"))
    assert not b.bench.home.vault_users.exists()


async def test_a_key_that_is_lost_everywhere_is_given_up_on_the_record(
    brokers: list[Broker],
) -> None:
    """Another is made then; one that is in the home is not given up."""
    a, b = brokers
    first = await key_of(a).make(OPERATOR, lost=False)
    with pytest.raises(UsageError, match="is in this home"):
        await key_of(a).make(OPERATOR, lost=True)
    await look(b)
    with pytest.raises(SealedError, match="not in this home"):
        await key_of(b).make(OPERATOR, lost=False)
    a.bench.home.team_key.unlink()
    second = await key_of(b).make(OPERATOR, lost=True)
    await look(a, b)
    assert second == KeyRecord(second.key)
    assert key_of(b).problem is None
    assert key_of(a).problem is not None
    (event,) = [
        one
        for one in await b.bench.events("secret.changed")
        if one.detail["after"] == second.key
    ]
    assert event.actor == OPERATOR
    assert event.detail["before"] == first.key


async def test_what_does_not_open_stops_the_change_and_is_told(
    brokers: list[Broker],
) -> None:
    """The old key is not removed while something that it sealed is not sealed anew."""
    a, b = brokers
    first = await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    await look(a, b)
    secrets = gateway_of(a).secrets
    secrets.set("api", VALUE, OPERATOR, [str(HERE)]).write()
    content = json.loads(a.bench.home.secrets_file.read_text())
    content["secrets"]["api"]["version"] += 1
    broken = json.dumps(content).encode()
    put_private(a.bench.home.secrets_file, broken, replace=True)
    second = await key_of(a).make(OPERATOR, lost=False)
    bring(a, b)
    await look(a, b)
    await look(a, b)
    assert key_ids(team_keys(a.bench.home)) == [second.key, first.key]
    assert "the secret api does not open" in (key_of(a).problem or "")
    told = await a.bench.read("/api/status")
    assert any("the secret api does not open" in one for one in told.json()["warnings"])
    a.bench.home.secrets_file.unlink()
    await look(a, b)
    assert key_ids(team_keys(a.bench.home)) == [second.key]


def test_a_token_under_a_key_that_is_gone_stays_as_it_is(tmp_path: Path) -> None:
    """Its vault user signs in again; the others' tokens are sealed anew."""
    home = Home(tmp_path, tmp_path)
    home.prepare()
    shared = VaultUsers(home, "https://a.example/", shared=True)
    alone = VaultUsers(home, "https://a.example/")
    alone.keep(ANN, VaultUser("sub", "Ann", Secret("refresh")))
    strange = VaultUsers(home, "https://other.example/")
    strange.keep(AgentId("agt_bob"), VaultUser("sub", "Bob", Secret("other")))
    put_private(home.team_key, b"k" * 32, replace=False)
    asyncio.run(shared.seal_anew())
    kept = shared.of(ANN)
    assert kept is not None
    assert kept.refresh_token.reveal() == "refresh"
    assert shared.of(AgentId("agt_bob")) is None
    assert (home.keys / f"{VaultUsersSeal.WHOSE}.key").exists()


async def test_a_record_that_is_damaged_is_told(brokers: list[Broker]) -> None:
    """Nothing is taken for the key in force then, and the broker goes on."""
    a, _ = brokers
    await key_of(a).make(OPERATOR, lost=False)
    await a.bench.ledger.commit(changes=[Meta(TEAM_KEY, "{")])
    await key_of(a).look()
    assert "is damaged" in (key_of(a).problem or "")
    with pytest.raises(SealedError, match="is damaged"):
        await key_of(a).make(OPERATOR, lost=False)
