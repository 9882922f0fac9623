"""The home's two files: read whole, noticed when they change, refused in words."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.policies import ENVIRONMENT

from agentvault_tui.broker.policy_files import (
    changed,
    load_policy,
    read_texts,
    write_texts,
)
from agentvault_tui.errors import PolicyError
from agentvault_tui.home import Home
from agentvault_tui.model import Action, Agent, AgentId, Outcome
from agentvault_tui.policy import Policy, shipped_policy

START = datetime(2026, 11, 24, tzinfo=UTC)
RULE = """@id("one") @why("Because.") @obligation("allow")
permit (principal, action, resource);
"""
SCOPES = """[scopes."read:boats"]
description = "See the boats."
risk = "high"
revoking = "Stops it."
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home."""
    return Home(tmp_path, tmp_path)


def test_an_empty_home_has_the_shipped_policy(home: Home) -> None:
    """A fresh install needs no file at all."""
    policy = load_policy(home)
    assert policy.source == "shipped"
    assert policy.text == shipped_policy()
    assert "read:calendar" in policy.catalogue


def test_the_homes_files_replace_the_shipped_ones(home: Home) -> None:
    """A home's policy.cedar and scopes.toml are in force as a whole."""
    home.policy_file.write_text("\ufeff" + RULE)
    home.scopes_file.write_text(SCOPES)
    policy = load_policy(home)
    assert policy.source == str(home.policy_file)
    assert [scope.name for scope in policy.catalogue] == ["read:boats"]
    scopes = ("read:boats",)
    agent = Agent(AgentId("agt_1"), "agt_1", "boats", "a@acme.test", "", scopes, START)
    verdict = policy.decide(agent, Action(scopes, scopes[0], None, {}), ENVIRONMENT)
    assert (verdict.outcome, verdict.rule) == (Outcome.ALLOWED, "one")


def own_file(home: Home, name: str, scope: str = "read:boats") -> Path:
    home.scopes_folder.mkdir(mode=0o700, exist_ok=True)
    file = home.scopes_folder / name
    file.write_text(SCOPES.replace("read:boats", scope))
    return file


def test_files_of_own_scopes_add_to_the_catalogue(home: Home) -> None:
    """They are next to the shipped scopes, or to those of scopes.toml."""
    own_file(home, "boats.toml")
    own_file(home, "cars.toml", "read:cars")
    own_file(home, ".hidden.toml", "read:hidden")
    policy = load_policy(home)
    assert {"read:boats", "read:cars", "send:payment"} <= {*names(policy)}
    assert "read:hidden" not in policy.catalogue
    home.scopes_file.write_text(SCOPES.replace("read:boats", "read:ships"))
    assert names(load_policy(home)) == ["read:ships", "read:boats", "read:cars"]


def names(policy: Policy) -> list[str]:
    return [scope.name for scope in policy.catalogue]


@pytest.mark.parametrize("own", [None, "read:ships"])
def test_a_file_of_own_scopes_redefines_no_scope(home: Home, own: str | None) -> None:
    """Neither a shipped scope, also where scopes.toml has none, nor one of another."""
    if own:
        home.scopes_file.write_text(SCOPES.replace("read:boats", own))
    for scope in ("send:payment", *([own] if own else [])):
        own_file(home, "boats.toml", scope)
        with pytest.raises(PolicyError, match=rf"boats\.toml line 1: {scope} is def"):
            load_policy(home)
    own_file(home, "boats.toml")
    own_file(home, "again.toml")
    with pytest.raises(PolicyError, match=r"scopes\.d/boats\.toml line 1: read:boats"):
        load_policy(home)


def test_a_file_of_own_scopes_that_others_can_write_is_refused(home: Home) -> None:
    """It decides what agents may do, as the policy does."""
    home.config.chmod(0o755)
    file = own_file(home, "boats.toml")
    file.chmod(0o666)
    with pytest.raises(PolicyError, match="others can write to"):
        load_policy(home)
    file.chmod(0o600)
    file.rename(file.with_name("Bad Name.toml"))
    with pytest.raises(PolicyError, match="has a bad name"):
        load_policy(home)


def test_a_change_of_own_scopes_is_noticed(home: Home) -> None:
    """A new, changed or removed file is read at the next look."""
    file = own_file(home, "boats.toml")
    policy = load_policy(home)
    assert not changed(policy, home)
    file.write_text(file.read_text() + "# more\n")
    assert changed(policy, home)
    own_file(home, "cars.toml", "read:cars")
    assert changed(policy, home)
    file.unlink()
    assert changed(policy, home)
    # Each use of its scopes is denied now, so it is no fault that it is gone.
    assert "read:boats" not in load_policy(home, policy.texts).catalogue


def test_texts_of_own_scopes_are_written_as_files(home: Home) -> None:
    """What was approved or recorded is in the folder afterwards, and nothing else."""
    own_file(home, "boats.toml")
    texts = read_texts(home)
    (home.scopes_folder / "boats.toml").unlink()
    own_file(home, "cars.toml", "read:cars")
    assert write_texts(home, texts) is None
    assert read_texts(home) == texts
    assert [one.name for one in home.scopes_folder.iterdir()] == ["boats.toml"]


def test_faults_name_the_file_and_the_line(home: Home) -> None:
    """Whoever edits one of the two files is told which, and where."""
    home.policy_file.write_text(RULE.replace("@why", "@how"))
    with pytest.raises(PolicyError, match=r"policy\.cedar line 1: .*no @why"):
        load_policy(home)
    home.scopes_file.write_text(SCOPES.replace("high", "huge"))
    with pytest.raises(PolicyError, match=r"scopes\.toml line 1: .*read:boats"):
        load_policy(home)


def test_a_change_is_told_once(home: Home) -> None:
    """Each save of either file is told by the next look, and only that one."""
    policy = load_policy(home)
    assert not changed(policy, home)
    home.policy_file.write_text("broken")
    assert changed(policy, home)
    assert not changed(policy, home)
    home.scopes_file.write_text(SCOPES)
    assert changed(policy, home)
    assert not changed(policy, home)
    home.policy_file.unlink()
    assert changed(policy, home)


def test_a_rename_with_the_same_size_and_time_is_a_change(home: Home) -> None:
    """Editors replace files by renaming; that is noticed even within one tick."""
    home.policy_file.write_text(RULE)
    policy = load_policy(home)
    found = home.policy_file.stat()
    other = home.config / "other"
    other.write_text(RULE.replace("Because", "becausE"))
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(home.policy_file)
    assert changed(policy, home)


@pytest.mark.parametrize("name", ["policy.cedar", "scopes.toml"])
def test_what_is_no_small_text_file_is_refused(home: Home, name: str) -> None:
    """A folder, a pipe, a file too large or not UTF-8 is told, and never waited for."""
    path = home.config / name
    path.mkdir()
    with pytest.raises(PolicyError, match=name):
        load_policy(home)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(PolicyError, match="not a plain file"):
        load_policy(home)
    path.unlink()
    path.write_bytes(b"# " + b"x" * 300_000)
    with pytest.raises(PolicyError, match="larger than 256 KiB"):
        load_policy(home)
    path.write_bytes(b"#\n\xff\xfe")
    with pytest.raises(PolicyError, match="line 2: it is not UTF-8"):
        load_policy(home)
