"""The one file with secrets: private, whole, and told apart by tenant."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentvault_tui.errors import NotFoundError, SealedError, SettingsError
from agentvault_tui.home import Home, put_private
from agentvault_tui.vault import Secret
from agentvault_tui.vault.kept_clients import ClientSecretsFile

ACME = "https://acme.eu.auth0.com/"


@pytest.fixture
def kept(tmp_path: Path) -> ClientSecretsFile:
    return ClientSecretsFile(Home(tmp_path, tmp_path), ACME)


def test_the_secrets_file_is_private_under_any_umask(kept: ClientSecretsFile) -> None:
    """File 0600 and folder 0700, also where everything may be read by default."""
    before = os.umask(0)
    try:
        kept.keep("broker", "c1", Secret("s1"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.path.parent.stat().st_mode) == 0o700
    assert list(kept.path.parent.iterdir()) == [kept.path]


def test_a_secret_belongs_to_its_client(kept: ClientSecretsFile) -> None:
    """A client made anew does not go by the secret of the one before it."""
    kept.keep("broker", "c1", Secret("s1"))
    assert kept.has_secret("broker", "c1")
    assert not kept.has_secret("broker", "c2")
    kept.keep("broker", "c2", None)
    assert not kept.has_secret("broker", "c2")
    with pytest.raises(NotFoundError, match="not in this home"):
        kept.secret("broker")


def test_a_removed_secret_is_named_in_the_error(kept: ClientSecretsFile) -> None:
    """Read when it is sent: gone by then, it is an error of ours that says so."""
    kept.keep("broker", "c1", Secret("s1"))
    secret = kept.secret("broker")
    kept.keep("broker", "c2", None)
    with pytest.raises(NotFoundError, match="not in this home"):
        secret.reveal()


def test_tenants_do_not_share_a_file(kept: ClientSecretsFile, tmp_path: Path) -> None:
    """Secrets of one are neither read nor overwritten for another."""
    kept.keep("broker", "c1", Secret("s1"))
    other = ClientSecretsFile(Home(tmp_path, tmp_path), "https://other.eu.auth0.com/")
    assert other.client_id("broker") == ""
    other.keep("broker", "c9", Secret("s9"))
    assert kept.secret("broker").reveal() == "s1"


def test_a_damaged_secrets_file_is_named_and_not_quoted(
    kept: ClientSecretsFile,
) -> None:
    """A person restores it; what it holds is in no message and no traceback."""
    kept.keep("broker", "c1", Secret("s1"))
    kept.path.write_text('{"broker": {"client_secret": "s1-very-secret"')
    with pytest.raises(SettingsError) as caught:
        kept.client_id("broker")
    error: BaseException | None = caught.value
    while error is not None:
        assert "very-secret" not in repr(error)
        error = error.__cause__
    assert "move it away" in caught.value.remedy


def test_two_processes_keep_each_others_secrets(
    kept: ClientSecretsFile, tmp_path: Path
) -> None:
    """A broker rotates while apply makes clients: every secret is told only once."""
    keys = [f"agents/agt_{number}" for number in range(24)]

    def keep(key: str) -> None:
        # As each process has it: an object of its own, and no lock in common.
        own = ClientSecretsFile(Home(tmp_path, tmp_path), ACME)
        own.keep(key, f"client of {key}", Secret(f"secret of {key}"))

    with ThreadPoolExecutor(8) as several:
        list(several.map(keep, keys))
    assert [kept.secret(key).reveal() for key in keys] == [
        f"secret of {key}" for key in keys
    ]


def test_a_kept_secret_is_flushed_to_disk(
    kept: ClientSecretsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File and folder are flushed: a rename alone may be undone by a power cut."""
    flushed = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        flushed.append(stat.S_IFMT(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    kept.keep("broker", "c1", Secret("s1"))
    assert flushed == [stat.S_IFREG, stat.S_IFDIR]


def test_a_symlink_for_the_secrets_file_is_replaced(
    kept: ClientSecretsFile, tmp_path: Path
) -> None:
    """Secrets are written to the home's own file, wherever a link there points."""
    kept.path.parent.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("{}")
    kept.path.symlink_to(elsewhere)
    kept.keep("broker", "c1", Secret("s1"))
    assert elsewhere.read_text() == "{}"
    assert not kept.path.is_symlink()
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600


def test_a_workers_key_ends_with_its_client(kept: ClientSecretsFile) -> None:
    """It is known by the tenant's id, beside the secret; a new client has none."""
    kept.keep("agents/agt_1", "c1", Secret("s1"))
    assert kept.worker_key("agents/agt_1") == ""
    kept.keep_worker_key("agents/agt_1", "cred_1", Secret("pem"))
    assert kept.worker_key("agents/agt_1") == "cred_1"
    assert kept.has_secret("agents/agt_1", "c1")
    kept.keep("agents/agt_1", "c2", None)
    assert kept.worker_key("agents/agt_1") == ""
    assert "pem" not in kept.path.read_text()


def test_a_teams_secrets_are_sealed_in_the_file(tmp_path: Path) -> None:
    """They open with the team's key, in the file and row where they were sealed."""
    home = Home(tmp_path, tmp_path)
    kept = ClientSecretsFile(home, ACME, shared=True)
    with pytest.raises(SealedError):
        kept.keep("management", "c1", Secret("s3cret"))
    alone = ClientSecretsFile(home, ACME)
    alone.keep("console", "c0", None)
    alone.keep("agents/one", "c2", Secret("other"))
    put_private(home.team_key, b"k" * 32, replace=False)
    kept.keep("management", "c1", Secret("s3cret"))
    kept.keep_worker_key("management", "kid", Secret("PEM"))
    assert kept.secret("agents/one").reveal() == "other"
    asyncio.run(kept.seal_anew())
    raw = kept.path.read_bytes()
    assert not [one for one in (b"s3cret", b"other", b"PEM") if one in raw]
    again = ClientSecretsFile(home, ACME, shared=True)
    assert again.secret("management").reveal() == "s3cret"
    assert again.secret("agents/one").reveal() == "other"
    assert again.listed()["console"] == ("c0", False)
    content = json.loads(raw)
    content["agents/one"]["client_secret"] = content["management"]["client_secret"]
    kept.path.write_text(json.dumps(content))
    with pytest.raises(SealedError):
        again.secret("agents/one").reveal()


def test_a_teams_secrets_are_sealed_anew_with_another_key(tmp_path: Path) -> None:
    """The key before opens nothing then; one that is missing leaves all as it is."""
    home = Home(tmp_path, tmp_path)
    home.keys.mkdir()
    put_private(home.team_key, b"k" * 32, replace=False)
    kept = ClientSecretsFile(home, ACME, shared=True)
    kept.keep("management", "c1", Secret("s3cret"))
    before = kept.path.read_bytes()
    put_private(home.team_key, b"n" * 32, replace=True)
    with pytest.raises(SealedError):
        asyncio.run(kept.seal_anew())
    assert kept.path.read_bytes() == before
    put_private(home.team_key, b"n" * 32 + b"k" * 32, replace=True)
    asyncio.run(kept.seal_anew())
    put_private(home.team_key, b"n" * 32, replace=True)
    assert kept.secret("management").reveal() == "s3cret"
