"""Sealed secrets: bound to their rows, wrapped by one key, and never in the clear."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.manual_clock import ManualClock

from agentvault_tui.errors import NotFoundError, SealedError, ServiceError, UsageError
from agentvault_tui.gateway.secrets import Secrets
from agentvault_tui.home import Home, put_private
from agentvault_tui.model import Actor, ActorKind
from agentvault_tui.origins import ServerOrigin

OLGA = Actor(ActorKind.OPERATOR, "uid:1000", "olga")
VALUE = "sk_live_4242"
HERE = ServerOrigin("https", "api.test", 443)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "keys").mkdir()
    return Home(tmp_path, tmp_path)


def secrets_of(home: Home, credentials: Path | None = None) -> Secrets:
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)} if credentials else {}
    return Secrets(home, ManualClock(datetime(2026, 11, 24, tzinfo=UTC)), environ)


def keep(secrets: Secrets, **values: str) -> None:
    for name, value in values.items():
        secrets.set(name, value, OLGA, [str(HERE)]).write()


def opened(secrets: Secrets, name: str) -> str:
    return secrets.open(name, [HERE]).reveal()


def tampered(home: Home, change: Any) -> Secrets:
    """Change the file as someone with an editor would."""
    content = json.loads(home.secrets_file.read_text())
    change(content)
    home.secrets_file.write_text(json.dumps(content))
    return secrets_of(home)


def test_a_secret_is_what_was_set(home: Home) -> None:
    """What was set is revealed, also by another process, and its repr hides it."""
    secrets = secrets_of(home)
    keep(secrets, stripe=VALUE, other="é")
    again = secrets_of(home)
    assert opened(again, "stripe") == opened(secrets, "stripe") == VALUE
    assert opened(again, "other") == "é"
    assert list(again.rows()) == ["other", "stripe"]
    assert VALUE not in repr(again.open("stripe", [HERE])) + repr(again.rows())
    assert again.root() == "home"
    assert home.secrets_file.stat().st_mode & 0o777 == 0o600
    assert (home.keys / "secrets.key").stat().st_mode & 0o777 == 0o600
    assert VALUE.encode() not in home.secrets_file.read_bytes()


def test_a_changed_file_is_read_again(home: Home) -> None:
    """A process that runs sees what another one set and removed."""
    secrets = secrets_of(home)
    keep(secrets, a="one")
    other = secrets_of(home)
    keep(other, a="two")
    assert opened(secrets, "a") == "two"
    other.remove("a", OLGA).write()
    with pytest.raises(NotFoundError):
        opened(secrets, "a")


def test_the_event_comes_before_the_file_and_has_no_value(home: Home) -> None:
    """Nothing is written before the change was recorded; the record has no value."""
    secrets = secrets_of(home)
    first = secrets.set("a", VALUE, OLGA)
    assert not home.secrets_file.exists()
    first.write()
    second, gone = secrets.set("a", VALUE, OLGA), secrets.remove("a", OLGA)
    told = [(c.draft.reason, c.draft.resource, c.draft.detail) for c in (first, second)]
    assert told == [
        ("set", "a", {"secret": "a", "version": 1, "for": ["none"]}),
        ("replaced", "a", {"secret": "a", "version": 2, "for": ["none"]}),
    ]
    assert gone.draft.reason == "removed"
    assert VALUE not in str([first.draft, second.draft, gone.draft])


@pytest.mark.parametrize(
    "value",
    ["", "a\nb", "a\r", "a\0", "\x1b[0m", "a\x7f", "a\x85", "\ud800", "x" * 4001],
)
def test_values_that_no_request_carries_are_refused(home: Home, value: str) -> None:
    """Empty, too long, or with control characters: it is not kept, and not quoted."""
    with pytest.raises(UsageError) as refused:
        secrets_of(home).set("a", value, OLGA)
    assert not value or value not in refused.value.diagnosis()


@pytest.mark.parametrize("name", ["", "A", "a b", "../a", "a" * 64, "-a", "é"])
def test_names_are_those_of_services(home: Home, name: str) -> None:
    """A name that a service file could not say is refused."""
    with pytest.raises(UsageError):
        secrets_of(home).set(name, "x", OLGA)


def test_a_row_opens_only_where_it_was_sealed(home: Home) -> None:
    """Swapped, renamed, half-swapped and older rows do not open."""
    secrets = secrets_of(home)
    keep(secrets, a="one", b="two")
    old = json.loads(home.secrets_file.read_text())["secrets"]["a"]
    keep(secrets, a="three")

    def swap(content: Any) -> None:
        rows = content["secrets"]
        rows["a"], rows["b"] = rows["b"], rows["a"]

    def rename(content: Any) -> None:
        content["secrets"]["a"] = content["secrets"]["b"]

    def mix(content: Any) -> None:
        content["secrets"]["a"]["box"] = content["secrets"]["b"]["box"]

    def put_back(content: Any) -> None:
        content["secrets"]["a"] = {**old, "version": content["secrets"]["a"]["version"]}

    kept = home.secrets_file.read_text()
    for change in (swap, rename, mix, put_back):
        with pytest.raises(ServiceError, match="does not open"):
            opened(tampered(home, change), "a")
        home.secrets_file.write_text(kept)
    assert opened(secrets_of(home), "a") == "three"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"secrets": 1}', '{"secrets": {"a": {}}}', "[" * 10_000]
)
def test_a_broken_file_is_said_and_not_overwritten(home: Home, text: str) -> None:
    """What cannot be read is neither taken for empty nor replaced."""
    home.secrets_file.write_text(text)
    secrets = secrets_of(home)
    for use in (secrets.rows, lambda: opened(secrets, "a")):
        with pytest.raises(ServiceError):
            use()
    with pytest.raises(ServiceError):
        secrets.set("a", VALUE, OLGA)
    assert home.secrets_file.read_text() == text


def test_rotation_makes_the_old_key_worthless(home: Home) -> None:
    """Every secret opens under the new key, and with the old one none does."""
    secrets = secrets_of(home)
    keep(secrets, a="one", b="two")
    old_key = (home.keys / "secrets.key").read_bytes()
    change = secrets.rotate_key(OLGA)
    change.write()
    assert change.draft.detail["before"] != change.draft.detail["after"]
    assert [opened(secrets_of(home), n) for n in "ab"] == ["one", "two"]
    assert sorted(p.name for p in home.keys.iterdir()) == ["secrets.key"]
    (home.keys / "secrets.key").write_bytes(old_key)
    with pytest.raises(ServiceError, match="is not here"):
        opened(secrets_of(home), "a")


@pytest.mark.parametrize("steps", range(4))
def test_a_rotation_that_stops_anywhere_loses_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Stopped before any of its renames, twice in a row, every secret still opens."""
    keep(secrets_of(home), a="one")
    rename = Path.replace
    for _ in range(2):
        done: list[Path] = []

        def replace(self: Path, target: Path, done: list[Path] = done) -> Path:
            if len(done) == steps:
                raise KeyboardInterrupt
            done.append(target)
            return rename(self, target)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(Path, "replace", replace)
            secrets_of(home).rotate_key(OLGA).write()
        assert opened(secrets_of(home), "a") == "one"
    secrets_of(home).rotate_key(OLGA).write()
    assert opened(secrets_of(home), "a") == "one"


def test_systemds_key_is_used_and_rotated(home: Home, tmp_path: Path) -> None:
    """With a credential the home keeps no key; another one takes its place."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    current = credentials / "agentvault-secrets-key"
    current.write_bytes(os.urandom(32))
    secrets = secrets_of(home, credentials)
    keep(secrets, a="one")
    assert secrets.root() == "systemd"
    assert list(home.keys.iterdir()) == []
    with pytest.raises(ServiceError, match="is not here"):
        secrets_of(home).set("b", "two", OLGA)
    with pytest.raises(UsageError, match="no other"):
        secrets.rotate_key(OLGA)
    current.rename(credentials / "agentvault-secrets-key-previous")
    current.write_bytes(os.urandom(32))
    secrets_of(home, credentials).rotate_key(OLGA).write()
    (credentials / "agentvault-secrets-key-previous").unlink()
    assert opened(secrets_of(home, credentials), "a") == "one"


def test_a_homes_key_moves_to_systemds(home: Home, tmp_path: Path) -> None:
    """A credential that comes later counts from the next rotation on."""
    keep(secrets_of(home), a="one")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "agentvault-secrets-key").write_bytes(os.urandom(32))
    secrets = secrets_of(home, credentials)
    assert secrets.root() == "home"
    secrets.rotate_key(OLGA).write()
    assert secrets_of(home, credentials).root() == "systemd"
    assert opened(secrets_of(home, credentials), "a") == "one"
    assert list(home.keys.iterdir()) == []


def test_a_damaged_key_is_said(home: Home) -> None:
    """A key of another length opens nothing, and is not replaced."""
    keep(secrets_of(home), a="one")
    (home.keys / "secrets.key").write_bytes(b"short")
    with pytest.raises(ServiceError, match="32 bytes"):
        opened(secrets_of(home), "a")
    with pytest.raises(ServiceError):
        secrets_of(home).set("a", "two", OLGA)


def of_team(home: Home) -> Secrets:
    clock = ManualClock(datetime(2026, 11, 24, tzinfo=UTC))
    secrets = Secrets(home, clock, {}, shared=True)
    secrets.seals_origins = True
    return secrets


def test_a_teams_secrets_are_sealed_with_its_key_alone(home: Home) -> None:
    """They open in another home that has it; without it they are sealed, not gone."""
    with pytest.raises(SealedError, match="is not here"):
        of_team(home).set("a", VALUE, OLGA)
    put_private(home.team_key, b"k" * 32, replace=False)
    secrets = of_team(home)
    keep(secrets, a=VALUE)
    assert secrets.root() == "team"
    assert opened(of_team(home), "a") == VALUE
    with pytest.raises(UsageError, match="team's key"):
        secrets.rotate_key(OLGA)
    assert [path.name for path in home.keys.iterdir()] == ["team.key"]
    home.team_key.unlink()
    for use in (
        lambda: opened(of_team(home), "a"),
        lambda: of_team(home).set("b", VALUE, OLGA),
        lambda: of_team(home).seal_anew(OLGA),
    ):
        with pytest.raises(SealedError) as error:
            use()
        assert "agentvault team key import" in error.value.remedy
    put_private(home.team_key, b"o" * 32, replace=False)
    with pytest.raises(SealedError, match="which the secrets are sealed with"):
        opened(of_team(home), "a")
    assert list(of_team(home).rows()) == ["a"]


def test_a_secret_that_is_set_in_a_home_that_joined_seals_all_for_the_team(
    home: Home,
) -> None:
    """No file has rows under two keys; a home's own key opens it until then."""
    alone = secrets_of(home)
    keep(alone, a="one")
    put_private(home.team_key, b"k" * 32, replace=False)
    secrets = of_team(home)
    assert opened(secrets, "a") == "one"
    keep(secrets, b="two")
    (home.keys / "secrets.key").unlink()
    assert [opened(of_team(home), one) for one in "ab"] == ["one", "two"]
    assert of_team(home).seal_anew(OLGA) is None


def test_a_teams_secrets_are_sealed_anew_with_another_key(home: Home) -> None:
    """The event names both keys; what is a row of before does not open any more."""
    put_private(home.team_key, b"k" * 32, replace=False)
    keep(of_team(home), a="one", b="two")
    before = json.loads(home.secrets_file.read_text())
    put_private(home.team_key, b"n" * 32 + b"k" * 32, replace=True)
    secrets = of_team(home)
    change = secrets.seal_anew(OLGA)
    assert change is not None
    assert change.draft.detail["before"] == before["key"]
    change.write()
    after = json.loads(home.secrets_file.read_text())
    assert change.draft.detail["after"] == after["key"]
    put_private(home.team_key, b"n" * 32, replace=True)
    assert [opened(of_team(home), one) for one in "ab"] == ["one", "two"]
    home.secrets_file.write_text(json.dumps(before))
    with pytest.raises(SealedError):
        opened(of_team(home), "a")
