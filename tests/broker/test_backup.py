"""Backups: one moment of a home in one file, restored with everything stopped."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bench import OPERATOR, PAYMENT, Bench
from support.ledger_kit import decision, make_older, manual_clock, tamper
from support.manual_clock import ManualClock
from support.restoring import restore_backup
from support.tenant_store import open_store as open_tenant
from support.tenant_store import open_users, seal_of

from agentvault_tui.broker import backup, restore
from agentvault_tui.broker.answers import Denied, Escalated, Granted
from agentvault_tui.broker.backup import Manifest, make_backup
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import lift_panic
from agentvault_tui.cli.app import run
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    HomeInUseError,
    LedgerDamagedError,
    LedgerUnwritableError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery, Ledger, schema, verify_ledger
from agentvault_tui.ledger.opening import HomeLock
from agentvault_tui.model import Action, Agent, StepUpStatus
from agentvault_tui.tenant.codes import DeviceCodes
from agentvault_tui.tenant.passkeys import Passkeys
from agentvault_tui.web import PublicAddress
from agentvault_tui.web.tls import TlsFiles

CALENDAR = Action(("read:calendar",), "read:calendar", "calendar:primary", {})
PHONES = PublicAddress(
    *("127.0.0.1", 7719, "https://ops.example:7719/", "ops.example"),
    TlsFiles(Path("cert.pem"), Path("key.pem")),
)
FILES = {
    "config.toml": "[stepup]\nmax_pending = 2\n",
    "services/mail.toml": "# not read here\n",
    "tls/cert.pem": "nor this\n",
    "keys/secrets.key": "k" * 32,
    "secrets.json": "{}",
}


@pytest.fixture
def home(short: Path) -> Home:
    return Home(short / "home", short / "home")


async def ask(bench: Bench, agent: Agent, action: Action) -> object:
    return await request_token(bench.broker, agent, action, resource=None, details=None)


def files(home: Home) -> dict[str, bytes]:
    """Return what a home has besides its databases and what is one process's."""
    passing = {"agentvault.db", "tenant.db", "ledger-head.json", "index.db"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for folder in (home.data, home.config)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {*passing, "start.reserve"}
        if not path.name.endswith(("-wal", "-shm"))
        if path.parent != home.run
    }


def fill(home: Home, clock: ManualClock, *, steps: int = 3) -> None:
    """Fill a home as a broker does: one agent, a token, a step-up, other files."""

    async def use() -> None:
        bench = await Bench.open(home, clock)
        agent = await bench.agent("payer", "send:payment", "read:calendar")
        for _ in range(steps):
            await bench.ledger.commit(decision(agent.id))
        asked = [await ask(bench, agent, action) for action in (CALENDAR, PAYMENT)]
        assert [type(answer) for answer in asked] == [Granted, Escalated]
        await bench.close()

    asyncio.run(use())
    with closing(sqlite3.connect(home.tenant / "tenant.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE users (name TEXT)")
        db.execute("INSERT INTO users VALUES ('carol')")
        db.commit()
    for name, text in FILES.items():
        folder = (
            home.config if name.partition("/")[0] in backup._SETTINGS else home.data
        )
        path = folder / name
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.write_text(text)


def forged(
    source: Path, target: Path, *members: tarfile.TarInfo, **told: object
) -> Path:
    """Write a backup with other members or another manifest, and its right digest."""
    content = io.BytesIO()
    with tarfile.open(source) as old, tarfile.open(fileobj=content, mode="w") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            found = file.read()
            if member.name == "manifest.json":
                found = json.dumps({**json.loads(found), **told}).encode()
                member.size = len(found)
            new.addfile(member, io.BytesIO(found))
        for member in members:
            new.addfile(member, io.BytesIO(bytes(member.size)))
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    target.write_bytes(
        content.getvalue() + f"agentvault-backup sha256:{digest}\n".encode()
    )
    return target


def test_a_restored_home_has_all_files_and_events(
    home: Home, short: Path, clock: ManualClock
) -> None:
    """Files, tenant's store and chain are those of the backup; modes are private."""
    fill(home, clock)
    (home.data / "keys" / "program").touch(0o755)
    made = make_backup(home, short / "b", clock)
    assert (short / "b").stat().st_mode & 0o777 == 0o600
    there = Home(short / "there", short / "there")
    told, head = restore_backup(there, short / "b", clock, OPERATOR)
    assert told == made
    assert files(there) == files(home)
    assert all(
        path.stat().st_mode & 0o077 == 0
        for path in (there.data, *there.data.rglob("*"))
    )
    kept = [path for path in there.data.rglob("*") if path.is_file()]
    assert [one.name for one in kept if os.access(one, os.X_OK)] == ["program"]
    assert verify_ledger(there, now=clock.now()).head == head
    with (
        closing(sqlite3.connect(home.database)) as old,
        closing(sqlite3.connect(there.database)) as new,
        closing(sqlite3.connect(there.tenant / "tenant.db")) as tenant,
    ):
        sql = "SELECT * FROM events WHERE seq <= ?"
        before = old.execute(sql, (made.seq,)).fetchall()
        assert new.execute(sql, (made.seq,)).fetchall() == before
        assert tenant.execute("SELECT name FROM users").fetchone() == ("carol",)


def test_nothing_of_before_is_in_force_after_a_restore(
    home: Home, short: Path, clock: ManualClock
) -> None:
    """Tokens have ended, step-ups are cancelled, panic holds until it is lifted."""
    fill(home, clock)
    there = Home(short / "there", short / "there")
    made = make_backup(home, short / "b", clock)
    restore_backup(there, short / "b", clock, OPERATOR)

    async def look() -> None:
        bench = await Bench.open(there, clock)
        try:
            page = await bench.ledger.events(EventQuery(after=made.seq))
            kinds = [event.type.value for event in page.events]
            assert kinds[:3] == ["ledger.restored", "panic.on", "stepup.cancelled"]
            restored, panic, *_ = page.events
            assert restored.actor == OPERATOR
            begun, goes_on = restored.detail["from"], restored.detail["to"]
            assert (begun["seq"], begun["hash"]) == (made.seq, made.hash)
            assert begun["at"] == made.made_at
            assert goes_on["at"] == "2026-11-24T10:00:00.000000Z"
            assert panic.detail["stepups_cancelled"] == 1
            registry = bench.broker.registry
            (agent,) = registry.agents()
            assert list(registry.tokens_of(agent.id)) == []
            (stepup,) = bench.broker.stepups.decided()
            assert stepup.status is StepUpStatus.CANCELLED
            assert registry.revocations.panic is not None
            refused = await ask(bench, agent, CALENDAR)
            assert isinstance(refused, Denied)
            assert refused.reason == "panic"
            await lift_panic(bench.broker, OPERATOR)
            assert isinstance(await ask(bench, agent, CALENDAR), Granted)
        finally:
            await bench.close()

    asyncio.run(look())


def test_a_restore_ends_what_people_had_begun(
    home: Home, short: Path, clock: ManualClock
) -> None:
    """Page sessions, links, codes and challenges: what ended since would live again."""
    fill(home, clock)
    now = clock.now().timestamp()
    for file in home.tenant.glob("tenant.db*"):
        file.unlink()
    with open_users(home) as users:
        sub = users.add("carol").user.sub
    with closing(open_tenant(home)) as store:
        store.insert("page_sessions", cookie_hash="c", sub=sub, expires_at=now + 900)
        store.insert("passkey_links", link_hash="l", sub=sub, expires_at=now + 900)
        codes = DeviceCodes(store, seal_of(home), clock)
        codes.issue("client", "openid", None, 120)
        before = Passkeys(store, seal_of(home), clock, PHONES).challenge("x")
    make_backup(home, short / "b", clock)
    there = Home(short / "there", short / "there")
    restore_backup(there, short / "b", clock, OPERATOR)
    with closing(open_tenant(there)) as store:
        for table in ("page_sessions", "passkey_links", "device_codes"):
            assert store.all(f"SELECT * FROM {table}") == []
        assert len(store.all("SELECT * FROM users")) == 1
        keys = Passkeys(store, seal_of(there), clock, PHONES)
        assert not keys.is_ours(before, "x")
        assert keys.is_ours(keys.challenge("x"), "x")


def test_a_home_in_two_folders_is_restored_into_two_or_one(
    home: Home, short: Path, clock: ManualClock
) -> None:
    """Settings go to the settings' folder, whatever the home was that they are from."""
    two = Home(short / "data", short / "config")
    fill(two, clock)
    make_backup(two, short / "b", clock)
    restore_backup(home, short / "b", clock, OPERATOR)
    assert files(home) == files(two)
    again = Home(short / "data2", short / "config2")
    make_backup(home, short / "b2", clock)
    restore_backup(again, short / "b2", clock, OPERATOR)
    assert (again.config / "config.toml").read_text() == FILES["config.toml"]
    assert (again.config / "services" / "mail.toml").exists()
    assert (again.config / "tls" / "cert.pem").exists()
    assert (again.data / "secrets.json").exists()


def test_settings_that_are_broken_are_restored_as_they_were(
    home: Home, short: Path, clock: ManualClock
) -> None:
    """A backup made while somebody edits them is a backup all the same."""
    fill(home, clock)
    (home.config / "config.toml").write_text("[stepup]\nmax_pending = ")
    make_backup(home, short / "b", clock)
    there = Home(short / "there", short / "there")
    restore_backup(there, short / "b", clock, OPERATOR)
    assert (there.config / "config.toml").read_text() == "[stepup]\nmax_pending = "


def test_settings_that_are_links_are_backed_up_as_what_they_lead_to(
    home: Home, short: Path, clock: ManualClock
) -> None:
    """A folder of services under version control comes back as plain files."""
    fill(home, clock)
    kept = short / "checkout"
    (home.config / "services").rename(kept)
    (kept / ".git").mkdir()
    (kept / ".git" / "HEAD").write_text("ref")
    (home.config / "services").symlink_to(kept)
    make_backup(home, short / "b", clock)
    there = Home(short / "there", short / "there")
    restore_backup(there, short / "b", clock, OPERATOR)
    assert not (there.config / "services").is_symlink()
    assert [p.name for p in (there.config / "services").iterdir()] == ["mail.toml"]


def test_a_backup_is_of_a_moment_at_which_no_file_changed(
    home: Home, short: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is replaced while files are read makes the backup begin again."""
    fill(home, clock)
    content, changed = backup._content, []

    def change_once(path: Path) -> tuple[int, bytes]:
        if path.name == "secrets.json" and not changed:
            changed.append(path)
            (home.data / "vault-users.json").write_text("later")
        return content(path)

    monkeypatch.setattr(backup, "_content", change_once)
    make_backup(home, short / "b", clock)
    with tarfile.open(short / "b") as tar:
        assert "data/vault-users.json" in tar.getnames()


def test_a_backup_is_of_a_moment_at_which_the_tenant_did_not_change(
    home: Home, short: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person added between the two snapshots is in the backup."""
    fill(home, clock)
    content, changed = backup._content, []

    def change_once(path: Path) -> tuple[int, bytes]:
        if not changed:
            changed.append(path)
            with closing(sqlite3.connect(home.tenant / "tenant.db")) as db:
                db.execute("INSERT INTO users VALUES ('vera')")
                db.commit()
        return content(path)

    monkeypatch.setattr(backup, "_content", change_once)
    make_backup(home, short / "b", clock)
    there = Home(short / "there", short / "there")
    restore_backup(there, short / "b", clock, OPERATOR)
    with closing(sqlite3.connect(there.tenant / "tenant.db")) as db:
        assert db.execute("SELECT count(*) FROM users").fetchone() == (2,)


def test_a_home_that_changes_all_the_time_is_not_backed_up(
    home: Home, short: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with an error, and without a file."""
    fill(home, clock)
    content = backup._content

    def change(path: Path) -> tuple[int, bytes]:
        (home.data / "secrets.json").write_text("x")
        os.utime(home.data / "secrets.json", ns=(0, next(moments)))
        return content(path)

    moments = iter(range(10**6))
    monkeypatch.setattr(backup, "_content", change)
    monkeypatch.setattr(backup, "_PAUSE", 0)
    with pytest.raises(LedgerUnwritableError):
        make_backup(home, short / "b", clock)
    assert sorted(path.name for path in short.iterdir()) == ["home"]


def test_a_backup_of_version_4_is_restored_and_brought_up_to_date(
    home: Home, short: Path, clock: ManualClock
) -> None:
    """Whoever backs up before the first start of a new version can go back to that."""
    fill(home, clock)
    make_older(home, 4)
    assert make_backup(home, short / "b", clock).schema == 4
    there = Home(short / "there", short / "there")
    restore_backup(there, short / "b", clock, OPERATOR)
    assert verify_ledger(there, now=clock.now()).ok


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup."""
    folder = tmp_path_factory.mktemp("made")
    home = Home(folder / "h", folder / "h")
    clock = manual_clock()
    fill(home, clock)
    make_backup(home, folder / "b", clock)
    return folder / "b"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_or_cut_backup_is_refused(
    data: st.DataObject, made: Path, short: Path
) -> None:
    """One other bit, or bytes gone or added anywhere: and the home stays empty.

    Half of the places are in the manifest or in a header.
    """
    content = bytearray(made.read_bytes())
    with tarfile.open(made) as tar:
        headers = [member.offset + n for member in tar for n in range(512)]
    places = st.sampled_from([*range(1024), *headers])
    at = data.draw(places | st.integers(0, len(content) - 1), label="at")
    match data.draw(st.sampled_from(("flip", "cut", "remove", "add")), label="how"):
        case "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
        case "cut":
            del content[at:]
        case "remove":
            del content[at : at + 512]
        case _:
            content[at:at] = bytes(512)
    other = short / "other"
    other.write_bytes(content)
    home = Home(short / "home", short / "home")
    with pytest.raises(RefusedError):
        restore_backup(home, other, manual_clock(), OPERATOR)
    assert [path.name for path in home.data.glob("*")] in ([], ["run"])


@pytest.mark.parametrize(
    "told",
    [
        {"version": "99.0.0"},
        {"schema": schema.VERSION + 1},
        {"format": "agentvault-backup/2"},
    ],
)
def test_a_backup_of_a_newer_version_is_refused(
    told: dict[str, object], made: Path, home: Home, short: Path, clock: ManualClock
) -> None:
    """It is told which version made it."""
    with pytest.raises(RefusedError, match="is a backup of AgentVault"):
        restore_backup(home, forged(made, short / "b", **told), clock, OPERATOR)


def test_a_backup_with_another_ledger_than_it_says_is_refused(
    made: Path, home: Home, short: Path, clock: ManualClock
) -> None:
    """The head of the manifest is what is shown, so it must be the ledger's."""
    other = forged(made, short / "b", seq=1)
    with pytest.raises(LedgerDamagedError):
        restore_backup(home, other, clock, OPERATOR)
    assert [path.name for path in home.data.iterdir()] == ["run"]


def test_a_backup_of_a_changed_ledger_is_refused(
    home: Home, short: Path, clock: ManualClock
) -> None:
    """An event changed before the backup was made does not verify after it."""
    fill(home, clock)
    tamper(home, "UPDATE events SET body = replace(body, 'granted', 'grantee')")
    make_backup(home, short / "b", clock)
    there = Home(short / "there", short / "there")
    with pytest.raises(LedgerDamagedError):
        restore_backup(there, short / "b", clock, OPERATOR)
    assert [path.name for path in there.data.iterdir()] == ["run"]


def test_a_backup_without_a_ledger_is_refused(
    made: Path, home: Home, short: Path, clock: ManualClock
) -> None:
    """Whatever its digest says."""
    content = io.BytesIO()
    with tarfile.open(made) as old, tarfile.open(fileobj=content, mode="w") as new:
        first = old.next()
        assert first is not None
        new.addfile(first, old.extractfile(first))
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    end = f"agentvault-backup sha256:{digest}\n".encode()
    (short / "b").write_bytes(content.getvalue() + end)
    with pytest.raises(LedgerUnwritableError):
        restore_backup(home, short / "b", clock, OPERATOR)
    assert [path.name for path in home.data.iterdir()] == ["run"]


def _odd(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        _odd("data/../../escaped"),
        _odd("/data/absolute"),
        _odd("other/file"),
        _odd("data"),
        _odd("data/run/agentvault.sock"),
        _odd("data/.restore/verified"),
        _odd("data/link", tarfile.SYMTYPE, "/etc/passwd"),
        _odd("data/hard", tarfile.LNKTYPE, "data/agentvault.db"),
        _odd("data/pipe", tarfile.FIFOTYPE),
        _odd("data/agentvault.db"),
        _odd("data/agentvault.db/inside"),
        pytest.param(_odd("data/" + "d/" * 1500 + "deep"), id="deep"),
    ],
    ids=lambda member: f"{member.name} {member.type!r}",
)
def test_a_member_that_is_no_file_of_a_home_is_refused(
    member: tarfile.TarInfo, made: Path, home: Home, short: Path, clock: ManualClock
) -> None:
    """Nothing is written outside of the home, nor a link or a second file in it."""
    other = forged(made, short / "b", member)
    with pytest.raises(AgentVaultError):
        restore_backup(home, other, clock, OPERATOR)
    assert [path.name for path in home.data.iterdir()] == ["run"]
    assert not (short / "escaped").exists()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_backup_that_was_cut_and_signed_again_is_refused(
    made: Path, home: Home, short: Path, clock: ManualClock, share: float
) -> None:
    """No file is restored in part, whatever the last line says of the whole."""
    content = made.read_bytes().rpartition(b"agentvault-backup ")[0]
    cut = content[: int(len(content) * share)]
    digest = hashlib.sha256(cut).hexdigest()
    (short / "b").write_bytes(cut + f"agentvault-backup sha256:{digest}\n".encode())
    with pytest.raises(RefusedError, match="not as it was written"):
        restore_backup(home, short / "b", clock, OPERATOR)
    assert [path.name for path in home.data.iterdir()] == ["run"]


def test_a_home_that_is_not_empty_is_left_alone(
    made: Path, home: Home, short: Path, clock: ManualClock
) -> None:
    """Neither a home with anything in it, nor one that a broker has."""
    home.data.mkdir(mode=0o700)
    (home.data / "config.toml").touch()
    with pytest.raises(ConflictError, match=r"config\.toml"):
        restore_backup(home, made, clock, OPERATOR)
    assert [path.name for path in home.data.iterdir()] == ["config.toml"]
    busy = Home(short / "busy", short / "busy")
    busy.prepare()
    for name in ("hosts", "mcp", "scopes.d", "services", "keys", "tenant"):
        (busy.data / name).rmdir()
    lock = HomeLock(busy.lock_file)
    with pytest.raises(HomeInUseError):
        restore_backup(busy, made, clock, OPERATOR)
    lock.release()


def test_a_target_that_is_there_or_in_the_home_is_refused(
    home: Home, short: Path, clock: ManualClock
) -> None:
    """No file is replaced, and no backup is part of the next."""
    with pytest.raises(NotFoundError):
        make_backup(home, short / "b", clock)
    fill(home, clock)
    (short / "there").write_text("kept")
    for target in (short / "there", home.data / "b", short / "none" / "b"):
        with pytest.raises(UsageError):
            make_backup(home, target, clock)
    assert (short / "there").read_text() == "kept"
    with pytest.raises(RefusedError, match="is no backup"):
        restore_backup(Home(short / "e", short / "e"), short / "there", clock, OPERATOR)
    with pytest.raises(NotFoundError):
        restore_backup(Home(short / "e", short / "e"), short / "none", clock, OPERATOR)


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_backup_that_others_can_write_is_refused(
    made: Path, home: Home, short: Path, clock: ManualClock, mode: int
) -> None:
    """Whoever writes it also writes its digest, and is then the home's owner."""
    shutil.copyfile(made, short / "b")
    (short / "b").chmod(mode)
    with pytest.raises(RefusedError, match="others can write"):
        restore_backup(home, short / "b", clock, OPERATOR)


class _KilledError(BaseException):
    """Stands for a SIGKILL: nothing of ours handles it, and nothing is cleaned up."""


def test_a_restore_killed_at_any_move_is_finished_by_the_next(
    made: Path,
    short: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Until then every other command refuses the home and says what to do."""
    move, left = shutil.move, -1

    def killed(path: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise _KilledError
        move(path, target)

    monkeypatch.setattr(shutil, "move", killed)
    for killed_at in range(1, 100):
        home = Home(short / f"h{killed_at}", short / f"h{killed_at}")
        left = killed_at
        try:
            restore_backup(home, made, clock, OPERATOR)
        except _KilledError:
            finished = False
        else:
            finished = True
        left = -1
        if finished:
            break
        assert run(["--home", str(home.data), "audit", "verify"]) == 2
        assert "agentvault restore" in capsys.readouterr().err
        restore_backup(home, made, clock, OPERATOR)
        assert verify_ledger(home, now=clock.now()).ok
        assert not home.unfinished.exists()
    else:
        pytest.fail("it was killed each time")
    assert killed_at > 8


def test_the_ledger_is_continued_once(
    made: Path, home: Home, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore that goes on after a kill does not record itself again."""

    def killed(*_: object) -> None:
        raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(restore, "_move", killed)
        with pytest.raises(_KilledError):
            restore_backup(home, made, clock, OPERATOR)
    restore_backup(home, made, clock, OPERATOR)

    async def kinds() -> list[str]:
        ledger = await Ledger.open(home, clock=clock)
        page = await ledger.events(EventQuery(after=0, limit=1000))
        await ledger.close()
        return [event.type.value for event in page.events]

    assert asyncio.run(kinds()).count("ledger.restored") == 1


def test_the_manifest_is_the_first_member(made: Path) -> None:
    """`tar` reads a backup, and its first member says what it is."""
    with tarfile.open(made) as tar:
        first = tar.next()
        assert first is not None
        content = tar.extractfile(first)
        assert content is not None
        manifest = msgspec.json.decode(content.read(), type=Manifest)
    assert (first.name, manifest.schema) == ("manifest.json", schema.VERSION)
