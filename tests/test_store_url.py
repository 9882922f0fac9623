"""Where a team's store is: never a secret in it, never another machine unverified."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings, StoreSettings
from agentvault_tui.store_url import password_file, require_library, store_parameters

VERIFIED = "target_session_attrs=read-write&sslmode=verify-full"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            f"postgresql://av@db1,db2:5433/team?{VERIFIED}",
            {"host": "db1,db2", "port": ",5433", "user": "av", "dbname": "team"},
        ),
        ("postgresql://av@/team?host=/run/postgresql", {"host": "/run/postgresql"}),
        ("postgresql://av@[::1]:5433/team", {"host": "::1", "port": "5433"}),
        ("postgres://av@127.0.0.1,localhost/team", {"host": "127.0.0.1,localhost"}),
        ("postgresql://a%40b@localhost/t%2Fm", {"user": "a@b", "dbname": "t/m"}),
        ("postgresql://av@%2Frun%2Fpg/team", {"host": "/run/pg"}),
    ],
)
def test_a_url_is_read_as_libpq_reads_it(url: str, expected: dict[str, str]) -> None:
    """Hosts, ports, sockets and escaped names arrive as libpq's parameters."""
    assert expected.items() <= store_parameters(url).items()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://av:hunter2@localhost/t", "holds a password"),
        ("postgresql://av:@localhost/t", "holds a password"),
        ("postgresql://av@localhost/t?password=hunter2", "holds a password"),
        ("postgresql://av@localhost/t?sslpassword=hunter2", "holds a password"),
        ("postgresql://av@localhost/t?service=hunter2", "the parameter service"),
        ("postgresql://av@localhost/t?options=-csearch_path%3Dx", "parameter options"),
        ("postgresql://av@db.example/t", "without sslmode=verify-full"),
        ("postgresql://av@db.example/t?sslmode=require", "without sslmode"),
        ("postgresql://av@localhost,db.example/t", "without sslmode"),
        ("postgresql://av@localhost,/t", "without sslmode"),
        ("postgresql://av@localhost/t?hostaddr=10.0.0.7", "without sslmode"),
        ("postgresql://av@localhost/t?host=db.example", "without sslmode"),
        ("postgresql://av@/t", "no user, host or database"),
        ("postgresql://localhost/t", "no user, host or database"),
        ("postgresql://av@localhost", "no user, host or database"),
        ("mysql://av@localhost/hunter2", "no PostgreSQL URL"),
        ("postgresql://av@[localhost/hunter2", "no URL"),
        ("postgresql://av@localhost/t?hunter2", "no URL"),
    ],
)
def test_an_unsafe_url_is_refused_and_not_quoted(url: str, words: str) -> None:
    """What may hold a secret is not repeated, also where the reason is another."""
    with pytest.raises(SettingsError, match=words) as caught:
        StoreSettings(url=url)
    assert caught.value.exit_code == 2
    assert "hunter2" not in caught.value.diagnosis()


def test_the_environment_may_name_a_password_file_but_no_password(
    tmp_path: Path,
) -> None:
    """PGPASSWORD is refused unread; PGPASSWORD_FILE is where the password is."""
    named = str(tmp_path / "password")
    assert password_file({"PGPASSWORD_FILE": named}) == Path(named)
    assert password_file({}) is None
    with pytest.raises(SettingsError, match="PGPASSWORD holds") as caught:
        password_file({"PGPASSWORD": "hunter2"})
    assert "hunter2" not in caught.value.diagnosis()


def test_a_missing_library_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few need PostgreSQL's, so it comes with an extra."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match="not installed") as caught:
        require_library()
    assert "agentvault-tui[postgres]" in caught.value.remedy


@pytest.mark.parametrize("name", ["PGHOSTADDR", "PGSERVICE", "PGOPTIONS"])
def test_the_environment_names_no_other_server(name: str) -> None:
    """A loopback store without TLS would else be one elsewhere."""
    with pytest.raises(SettingsError, match=f"{name} is set"):
        password_file({name: "10.0.0.7"})


def test_the_store_is_a_setting_like_any_other(tmp_path: Path) -> None:
    """The environment sets it, and a refusal comes with the settings' exit code."""
    home = Home.locate(tmp_path)
    url = "postgresql://av@/team?host=/run/postgresql"
    assert Settings.load(home, {"AGENTVAULT_STORE_URL": url}).store.url == url
    with pytest.raises(SettingsError, match="holds a password"):
        Settings.load(home, {"AGENTVAULT_STORE_URL": "postgresql://a:b@localhost/t"})
