"""`agentvault team key`: made in one home, brought to the others by a file."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.command_line import PROGRAM, Answer, plain_environment
from support.patience import PATIENT
from support.postgres import TEAM, Database

from agentvault_tui.home import Home, put_private
from agentvault_tui.sealing import encode_keys, key_ids, team_keys

Run = Callable[..., Answer]
PASSPHRASE = "correct horse battery"


def member(folder: Path, url: str, team: str = TEAM) -> Home:
    home = Home(folder, folder)
    home.prepare()
    home.config_file.write_text(f'[store]\nurl = "{url}"\n[team]\nname = "{team}"\n')
    return home


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Gives standard input, which is no terminal, to the next command line."""

    def give(content: bytes) -> None:
        stdin = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)

    return give


@pytest.fixture
def homes(short: Path, store: Database) -> list[Home]:
    return [member(short / name, store.url) for name in ("a", "b")]


def at(cli: Run, home: Home) -> Run:
    return lambda *argv: cli("--home", str(home.data), "team", "key", *argv)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_key_goes_from_home_to_home_under_a_passphrase(
    cli: Run, homes: list[Home], type_in: Callable[[bytes], None], short: Path
) -> None:
    """Neither home needs a broker for it; the first key and its change are recorded."""
    a, b = (at(cli, home) for home in homes)
    first = a("new", "--json").json
    assert first == {"key": first["key"], "before": None, "missing": []}
    assert mode(homes[0].team_key) == 0o600
    file = short / "key.json"
    type_in(f"{PASSPHRASE}\n".encode())
    exported = a("export", str(file), "--passphrase-file", "-", "--json")
    assert exported.json == {"file": str(file), "key": first["key"]}
    assert mode(file) == 0o600
    (key,) = team_keys(homes[0])
    assert key not in file.read_bytes()
    word = short / "word"
    put_private(word, f"{PASSPHRASE}\r\n".encode(), replace=False)
    told = b("import", str(file), "--passphrase-file", str(word), "--json")
    assert told.json == {"key": first["key"], "changed": True}
    assert team_keys(homes[1]) == [key]
    assert mode(homes[1].team_key) == 0o600

    second = a("new", "--json").json
    assert second["before"] == first["key"]
    assert key_ids(team_keys(homes[0])) == [second["key"], first["key"]]
    plain = short / "plain"
    assert a("export", str(plain), "--plain").code == 0
    assert mode(plain) == 0o600
    # The home's key is the one before: it is not asked about.
    assert b("import", str(plain), "--json").json["key"] == second["key"]
    assert team_keys(homes[1]) == team_keys(homes[0])
    assert not b("import", str(plain), "--json").json["changed"]
    backup = short / "backup"
    assert cli("--home", str(homes[0].data), "backup", str(backup)).code == 0
    with tarfile.open(backup) as tar:
        kept = tar.extractfile("data/keys/team.key")
        assert kept is not None
        assert kept.read() == homes[0].team_key.read_bytes()
    told = cli("--home", str(homes[0].data), "store", "check", "--json")
    assert told.json["ok"], told.json


def test_files_that_hold_no_key_of_the_team_are_refused(
    cli: Run, homes: list[Home], type_in: Callable[[bytes], None], short: Path
) -> None:
    """Another team's, cut, wrong passphrase, open to others, none: all stay out."""
    a, b = (at(cli, home) for home in homes)
    assert a("new").code == 0
    file, plain = short / "key.json", short / "plain"
    type_in(PASSPHRASE.encode())
    assert a("export", str(file), "--passphrase-file", "-").code == 0
    assert a("export", str(plain), "--plain").code == 0

    def refused(path: Path, code: int, says: str, word: str = PASSPHRASE) -> None:
        type_in(word.encode("latin-1"))
        answer = b("import", str(path), "--passphrase-file", "-")
        assert (answer.code, says in answer.err) == (code, True), answer.err
        assert PASSPHRASE not in answer.err
        assert not homes[1].team_key.exists()

    refused(file, 1, "the passphrase is not the one", "another passphrase")
    refused(file, 2, "the passphrase is empty", "\n")
    refused(file, 2, "the passphrase is empty, or too long", "x" * 2000)
    refused(file, 2, "the passphrase is not UTF-8", "\xff")
    whole = file.read_bytes()
    later = whole.replace(b'/1"', b'/2"')
    for content in (whole[:-20], later, b"", b"k" * 31, b"k" * 32):
        put_private(short / "cut", content, replace=True)
        refused(short / "cut", 2, "no file of a team's key")
    put_private(short / "long", b"k" * 5000, replace=True)
    refused(short / "long", 2, "too long")
    for content in (whole, plain.read_bytes()):
        other = content.replace(TEAM.encode(), b"others")
        put_private(short / "other", other, replace=True)
        refused(short / "other", 2, "another team")
    for path in (file, plain):
        path.chmod(0o640)
        refused(path, 2, "is open to others (mode 0640)")
    refused(short / "none", 2, "cannot be read")
    refused(short, 2, "")
    os.mkfifo(short / "pipe", 0o600)
    refused(short / "pipe", 2, "is no file")


def test_another_key_is_replaced_only_with_a_yes(
    cli: Run, homes: list[Home], type_in: Callable[[bytes], None], short: Path
) -> None:
    """Without a terminal that is --yes; the other one stays to open what it sealed."""
    a, b = (at(cli, home) for home in homes)
    assert a("new").code == 0
    put_private(homes[1].team_key, b"o" * 32, replace=False)
    plain = short / "plain"
    assert a("export", str(plain), "--plain").code == 0
    type_in(b"")
    answer = b("import", str(plain))
    assert answer.code == 1
    assert "--yes" in answer.err
    assert team_keys(homes[1]) == [b"o" * 32]
    assert b("import", str(plain), "--yes").code == 0
    assert team_keys(homes[1]) == [*team_keys(homes[0]), b"o" * 32]


@pytest.mark.parametrize("changes", [False, True])
def test_the_keys_are_free_while_a_person_is_asked_whether_to_replace_one(
    cli: Run,
    homes: list[Home],
    monkeypatch: pytest.MonkeyPatch,
    short: Path,
    *,
    changes: bool,
) -> None:
    """A broker goes on; a key that it put there meanwhile is not replaced."""
    plain, key = short / "key", homes[1].team_key
    made = bytes(range(32))
    put_private(plain, encode_keys([made], TEAM, None), replace=False)
    put_private(key, bytes(32), replace=False)

    def yes(_: str) -> bool:
        folder = os.open(homes[1].keys, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if changes:
            put_private(key, bytes(31) + b"1", replace=True)
        os.close(folder)
        return True

    monkeypatch.setattr("agentvault_tui.cli.team.confirm", yes)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    answer = at(cli, homes[1])("import", str(plain))
    assert (answer.code == 0) is not changes, answer.err
    assert (made in key.read_bytes()) is not changes


def test_exporting_overwrites_nothing_and_asks_for_a_passphrase(
    cli: Run, homes: list[Home], type_in: Callable[[bytes], None], short: Path
) -> None:
    """A file that is there, a short passphrase and no terminal are errors."""
    a, b = (at(cli, home) for home in homes)
    assert a("new").code == 0
    taken = short / "taken"
    taken.write_text("mine")
    assert a("export", str(taken), "--plain").code == 2
    assert taken.read_text() == "mine"
    type_in(b"short")
    assert "fewer than" in a("export", str(short / "x"), "--passphrase-file", "-").err
    type_in(b"")
    answer = a("export", str(short / "x"))
    assert (answer.code, "no terminal" in answer.err) == (2, True)
    assert not (short / "x").exists()
    both = a("export", str(short / "x"), "--plain", "--passphrase-file", "-")
    assert (both.code, "--plain takes no passphrase" in both.err) == (2, True)
    lost = b("export", str(short / "x"), "--plain")
    assert (lost.code, "team key import" in lost.err) == (1, True)


def test_a_key_that_a_killed_command_left_is_in_no_way(
    cli: Run, homes: list[Home]
) -> None:
    """The ledger does not name it: it is removed, and another one made."""
    put_private(homes[0].team_key_next, b"n" * 32, replace=False)
    made = at(cli, homes[0])("new", "--json").json
    assert key_ids(team_keys(homes[0])) == [made["key"]]
    assert not homes[0].team_key_next.exists()


def test_operators_of_a_claim_make_no_key_without_a_broker(
    cli: Run, homes: list[Home]
) -> None:
    """Nobody has signed in, so nobody is known to be one; nothing is made."""
    with homes[0].config_file.open("a") as config:
        config.write('[operators]\nroles = "claim"\n')
    answer = at(cli, homes[0])("new")
    assert (answer.code, "agentvault login" in answer.err) == (3, True), answer.err
    assert not homes[0].team_key.exists()


def test_a_home_of_no_team_has_no_such_key(cli: Run, short: Path) -> None:
    """Its secrets are sealed with keys of its own; nothing is made."""
    home = Home(short / "h", short / "h")
    home.prepare()
    for argv in (["new"], ["export", "x", "--plain"], ["import", "x"]):
        answer = at(cli, home)(*argv)
        assert (answer.code, "in no team" in answer.err) == (2, True)
    assert not list(home.keys.iterdir())


def test_doctor_says_which_key_is_missing(cli: Run, homes: list[Home]) -> None:
    """A home that has not the team's key is a fault, with what to do."""
    a, _ = homes
    assert at(cli, a)("new").code == 0
    a.team_key.unlink()
    told = cli("--home", str(a.data), "doctor", "--json").json["findings"]
    (found,) = [one for one in told if "team's key" in one["what"]]
    assert found["level"] == "fault"
    assert "agentvault team key import" in found["remedy"]


@pytest.mark.slow
def test_a_passphrase_is_typed_twice_and_shown_nowhere(
    cli: Run, homes: list[Home], short: Path
) -> None:
    """It is in no argument, no environment and not on the terminal."""
    assert at(cli, homes[0])("new").code == 0
    file = short / "key.json"
    ours, theirs = pty.openpty()
    line = ("--home", str(homes[0].data), "team", "key", "export", str(file))
    with subprocess.Popen(
        [*PROGRAM, *line],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=plain_environment(),
        start_new_session=True,  # it asks at the terminal of its session
    ) as typing:
        seen, said = b"", b""
        for _ in range(2):
            while not said.rstrip(b"\r\n").endswith((b"or more): ", b"Once more: ")):
                said += os.read(ours, 1024)
            proc = Path(f"/proc/{typing.pid}")
            seen += b"".join((proc / n).read_bytes() for n in ("cmdline", "environ"))
            os.write(ours, f"{PASSPHRASE}\n".encode())
            seen, said = seen + said, b""
        assert typing.wait(PATIENT) == 0
    os.close(ours)
    os.close(theirs)
    assert PASSPHRASE.encode() not in seen
    assert b'"agentvault-team-key/1"' in file.read_bytes()
