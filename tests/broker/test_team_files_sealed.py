"""Sealed files of a team's homes are in step, member by member, as ciphertext alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR
from support.manual_clock import ManualClock
from support.postgres import Database
from support.team_members import Member, member, seen

from agentvault_tui.broker import team_copies
from agentvault_tui.broker.vault_access import VaultUser, VaultUsers
from agentvault_tui.errors import LedgerError, NotFoundError, SealedError
from agentvault_tui.gateway.secrets import Secrets
from agentvault_tui.home import Home, put_private
from agentvault_tui.model import AgentId
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.vault import Secret
from agentvault_tui.vault.kept_clients import ClientSecretsFile

KEY = bytes(range(32))
ANN, BOB = AgentId("agt_ann"), AgentId("agt_bob")
VALUE, OTHER = "sk_live_4242", "sk_live_1881"
HERE = ServerOrigin("https", "api.test", 443)


@pytest.fixture
def homes(homes: list[Home]) -> list[Home]:
    """Three homes; all but the last have the team's key."""
    for home in homes[:2]:
        put_private(home.team_key, KEY, replace=False)
    return homes


async def put(one: Member, name: str, value: str | None) -> None:
    """Set a secret as an operator at that broker does, or with None remove it."""
    secrets = one.gateway.secrets
    await secrets.change(
        lambda: (
            secrets.remove(name, OPERATOR)
            if value is None
            else secrets.set(name, value, OPERATOR, [str(HERE)])
        ),
        one.bench.broker.record,
    )


async def get(one: Member, name: str) -> str | None:
    """Return what a call that is admitted at that broker now would carry."""
    await one.bench.ledger.confirm()
    try:
        return one.gateway.secrets.open(name, [HERE]).reveal()
    except NotFoundError:
        return None


def user(name: str, token: str) -> VaultUser:
    return VaultUser(f"auth0|{name}", name, Secret(token), "client")


def clients(home: Home, one: Member, *, shared: bool = True) -> ClientSecretsFile:
    """Return the file of clients, as another process uses it."""
    return ClientSecretsFile(
        home, one.bench.broker.reaching.vault.issuer, shared=shared
    )


def stored(store: Database) -> bytes:
    """Return all that the store has."""
    rows = store.run("SELECT doc FROM agentvault.state")
    rows += store.run("SELECT body FROM agentvault.events")
    return b"".join(bytes(row[0]) for row in rows)  # type: ignore[arg-type]


async def test_a_secret_set_at_one_broker_is_attached_at_the_other_s_next_call(
    a: Member, b: Member, store: Database
) -> None:
    """So is one that replaces it; one that is removed is attached no more."""
    await put(a, "api", VALUE)
    assert await get(b, "api") == VALUE
    await put(b, "api", OTHER)
    assert await get(a, "api") == OTHER
    assert VALUE.encode() not in stored(store)
    assert OTHER.encode() not in stored(store)
    await put(a, "api", None)
    assert await get(b, "api") is None
    changed = await b.bench.events("secret.changed")
    assert [one.reason for one in changed] == ["set", "replaced", "removed"]


async def test_secrets_that_are_set_at_two_brokers_at_once_are_both_kept(
    a: Member, b: Member
) -> None:
    """Whoever was second sets its own anew, beside the other's."""
    for number in range(4):
        await asyncio.gather(
            put(a, f"a{number}", VALUE),
            put(b, f"b{number}", OTHER),
            put(a, "both", f"{VALUE}{number}"),
            put(b, "both", f"{OTHER}{number}"),
        )
    names = {f"{one}{number}" for one in "ab" for number in range(4)} | {"both"}
    await seen(a, b)
    assert await get(a, "both") == await get(b, "both") in {f"{VALUE}3", f"{OTHER}3"}
    for one in (a, b):
        assert one.gateway.secrets.rows().keys() == names
        assert {await get(one, f"a{number}") for number in range(4)} == {VALUE}
        assert one.files.copies.aside == []


async def test_a_sealed_file_that_is_gone_is_written_as_a_whole(
    a: Member, b: Member
) -> None:
    """With the member that came: the others were not removed by anybody."""
    users = [one.bench.broker.reaching.vault.users for one in (a, b)]
    users[0].keep(ANN, user("ann", "refresh-ann"))
    await seen(a, b)
    b.home.vault_users.unlink()
    users[0].keep(BOB, user("bob", "refresh-bob"))
    await seen(a, b, a)
    for kept in users:
        assert all(kept.of(agent_id) is not None for agent_id in (ANN, BOB))


async def test_vault_users_and_clients_are_in_step(
    a: Member, b: Member, store: Database
) -> None:
    """Members that two homes change at once are merged; one that goes, goes for all."""
    users = [one.bench.broker.reaching.vault.users for one in (a, b)]
    users[0].keep(ANN, user("ann", "refresh-ann"))
    users[1].keep(BOB, user("bob", "refresh-bob"))
    clients(a.home, a).keep("agents/agt_ann", "cl_ann", Secret("secret-ann"))
    clients(b.home, a).keep("agents/agt_bob", "cl_bob", Secret("secret-bob"))
    clients(b.home, a).keep("console", "cl_console", None)
    await asyncio.gather(a.look(), b.look())
    await seen(a, b)
    for one, kept in zip((a, b), users, strict=True):
        for agent_id, name in ((ANN, "ann"), (BOB, "bob")):
            found = kept.of(agent_id)
            assert found is not None
            assert found.refresh_token.reveal() == f"refresh-{name}"
            credential = one.bench.broker.reaching.vault.credential(agent_id)
            assert credential.secret.reveal() == f"secret-{name}"
        assert clients(one.home, a).client_id("console") == "cl_console"
    for hidden in (b"refresh-ann", b"refresh-bob", b"secret-ann", b"secret-bob"):
        assert hidden not in stored(store)
    users[1].forget(ANN)
    await b.look()
    await a.bench.ledger.confirm()
    assert users[0].of(ANN) is None
    assert users[0].of(BOB) is not None
    assert a.warnings == b.warnings == ""


async def test_what_is_not_sealed_with_the_team_s_key_stays_in_its_home(
    homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """It is warned of, and shared once it is sealed anew."""
    alone = homes[2]
    secrets = Secrets(alone, clock)
    secrets.set("api", VALUE, OPERATOR, [str(HERE)]).write()
    async with member(alone, clock, store) as c:
        issuer = c.bench.broker.reaching.vault.issuer
        VaultUsers(alone, issuer).keep(ANN, user("ann", "refresh-ann"))
        clients(alone, c, shared=False).keep("agents/agt_ann", "cl", Secret("plain"))
        await c.look()
        assert not [row for row in rows_of(store) if "#" in row]
        assert b"plain" not in stored(store)
        for name in ("secrets.json", "vault-users.json", "keys/auth0-"):
            assert f"{name}" in c.warnings
        key = c.bench.broker.team.key
        assert key is not None
        await key.make(OPERATOR, lost=False)
        await c.look()
        assert b"plain" not in stored(store)
        assert c.warnings == ""
        put_private(homes[1].team_key, alone.team_key.read_bytes(), replace=True)
        async with member(homes[1], clock, store) as b:
            assert await get(b, "api") == VALUE
            found = b.bench.broker.reaching.vault.users.of(ANN)
            assert found is not None
            assert found.refresh_token.reveal() == "refresh-ann"
            assert (
                b.bench.broker.reaching.vault.credential(ANN).secret.reveal() == "plain"
            )


def rows_of(store: Database) -> list[str]:
    found = store.run("SELECT key FROM agentvault.state WHERE key LIKE 'app:file:%%'")
    return [str(row[0]) for row in found]


async def test_a_home_that_joins_keeps_its_own_secrets_beside(
    a: Member, homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """Those of the team count; a broker without the key has them and opens none."""
    await put(a, "api", VALUE)
    Secrets(homes[2], clock).set("own", OTHER, OPERATOR).write()
    own = homes[2].secrets_file.read_bytes()
    async with member(homes[2], clock, store) as c:
        assert c.gateway.secrets.rows().keys() == {"api"}
        beside = homes[2].data / "secrets.json.local"
        assert json.loads(beside.read_bytes()) == json.loads(own)
        assert "secrets.json.local is an edit" in c.warnings
        with pytest.raises(SealedError):
            c.gateway.secrets.open("api", [HERE])
        put_private(homes[2].team_key, KEY, replace=False)
        assert await get(c, "api") == VALUE


@pytest.mark.parametrize("content", [None, b"{ broken", b"[]"])
async def test_a_sealed_file_that_is_gone_or_broken_removes_nothing(
    a: Member, b: Member, content: bytes | None
) -> None:
    """One that is gone is written again, and both once another broker changes it."""
    await put(a, "api", VALUE)
    await put(a, "more", VALUE)
    await seen(b)
    if content is None:
        b.home.secrets_file.unlink()
    else:
        b.home.secrets_file.write_bytes(content)
    await b.look()
    assert (b.warnings == "") is (content is None)
    assert await get(a, "api") == VALUE
    await put(a, "api", OTHER)
    assert await get(b, "api") == OTHER
    assert await get(b, "more") == VALUE
    await b.look()
    assert b.warnings == ""


async def test_a_member_that_is_no_json_is_not_written(
    a: Member, store: Database
) -> None:
    """A row cannot bring further members, or another file."""
    await put(a, "api", VALUE)
    before = a.home.secrets_file.read_bytes()
    for name in ("secrets.json#key", "secrets.json#new", "other.json#key"):
        put_member(store, name, '"x"},"secrets":{')
        await seen(a)
    assert a.home.secrets_file.read_bytes() == before
    assert not (a.home.data / "other.json").exists()
    assert "secrets.json is not in force" in a.warnings


def put_member(store: Database, path: str, text: str) -> None:
    ((n,),) = store.run(
        "UPDATE agentvault.head SET revision = revision + 1, n = n + 1,"
        " batch = gen_random_uuid() RETURNING n"
    )
    key = f"app:file:{path}"
    store.run(
        "INSERT INTO agentvault.state SELECT 'meta', %s, n, revision, NULL, %s"
        " FROM agentvault.head ON CONFLICT (kind, key) DO UPDATE SET n = excluded.n,"
        " revision = excluded.revision, doc = excluded.doc",
        key,
        json.dumps([key, text, n]).encode(),
    )


async def test_a_broker_that_cannot_write_what_another_changed_grants_nothing(
    a: Member, b: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that was removed elsewhere would be attached here."""
    await put(a, "api", VALUE)
    assert await get(b, "api") == VALUE
    write = team_copies.put_private

    def full(path: Path, *args: Any, **more: Any) -> None:
        if path == b.home.secrets_file:
            raise OSError(28, "No space left on device")
        write(path, *args, **more)

    monkeypatch.setattr(team_copies, "put_private", full)
    await put(a, "api", None)
    with pytest.raises(LedgerError):
        await b.bench.ledger.confirm()


async def test_a_home_that_was_away_has_the_secrets_of_now(
    a: Member, homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """Before its first call; what it changed without a broker is the team's then."""
    await put(a, "api", VALUE)
    await put(a, "gone", VALUE)
    async with member(homes[1], clock, store) as b:
        assert await get(b, "gone") == VALUE
    await put(a, "gone", None)
    clients(homes[1], a).keep("console", "cl_console", Secret("of-apply"))
    async with member(homes[1], clock, store) as b:
        assert await get(b, "gone") is None
        await seen(a)
        assert clients(a.home, a).secret("console").reveal() == "of-apply"


@pytest.mark.parametrize("then", [OTHER, None], ids=["replaced", "removed"])
async def test_secrets_from_an_old_backup_are_no_edit(
    a: Member, homes: list[Home], clock: ManualClock, store: Database, then: str | None
) -> None:
    """They are kept beside; what was replaced or removed since stays so everywhere."""
    await put(a, "api", VALUE)
    async with member(homes[1], clock, store) as b:
        file = b.home.secrets_file
        old = file.read_bytes()
        await put(b, "api", then)
        file.write_bytes(old)
        await seen(b, a)
        assert await get(a, "api") == await get(b, "api") == then
        file.with_name("secrets.json.local").unlink()
    file.write_bytes(old)
    async with member(homes[1], clock, store) as b:
        await seen(a)
        assert await get(a, "api") == await get(b, "api") == then
        assert file.with_name("secrets.json.local").read_bytes() == old
        assert "secrets.json.local is an edit" in b.warnings
        await put(b, "api", OTHER)
        assert await get(a, "api") == OTHER


async def test_secrets_under_a_lost_key_are_removed_and_set_anew(
    a: Member, b: Member
) -> None:
    """Removing needs no key; what is set then is sealed with the key of now."""
    await put(a, "api", VALUE)
    await put(a, "more", VALUE)
    for one in (a, b):
        put_private(one.home.team_key, KEY[::-1], replace=True)
        one.gateway.secrets._seal = None  # as after a start
    for name in ("api", "more"):
        with pytest.raises(SealedError):
            await put(a, "new", OTHER)
        await put(a, name, None)
    await put(a, "api", OTHER)
    assert await get(b, "api") == OTHER
    assert b.gateway.secrets.rows().keys() == {"api"}
