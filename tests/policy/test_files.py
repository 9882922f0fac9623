"""The home's two files: read whole, noticed when they change, refused in words."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from agentvault_tui.errors import PolicyError
from agentvault_tui.home import Home
from agentvault_tui.model import Action, Agent, Outcome
from agentvault_tui.policy import Policy, shipped_policy

RULE = """@id("one") @why("Because.") @obligation("allow")
permit (principal, action, resource);
"""
SCOPES = """[scopes."read:boats"]
description = "See the boats."
risk = "high"
revoking = "Stops it."
"""


def test_an_empty_home_has_the_shipped_policy(home: Home) -> None:
    """A fresh install needs no file at all."""
    policy = Policy.load(home)
    assert policy.source == "shipped"
    assert policy.text == shipped_policy()
    assert "read:calendar" in policy.catalogue


def test_the_homes_files_replace_the_shipped_ones(
    home: Home, agent_with: Callable[..., Agent], ask: Callable[..., Action]
) -> None:
    """A home's policy.cedar and scopes.toml are in force as a whole."""
    home.policy_file.write_text("\ufeff" + RULE)
    home.scopes_file.write_text(SCOPES)
    policy = Policy.load(home)
    assert policy.source == str(home.policy_file)
    assert [scope.name for scope in policy.catalogue] == ["read:boats"]
    verdict = policy.decide(agent_with("read:boats"), ask("read:boats"))
    assert (verdict.outcome, verdict.rule) == (Outcome.ALLOWED, "one")


def test_faults_name_the_file_and_the_line(home: Home) -> None:
    """Whoever edits one of the two files is told which, and where."""
    home.policy_file.write_text(RULE.replace("@why", "@how"))
    with pytest.raises(PolicyError, match=r"policy\.cedar line 1: .*no @why"):
        Policy.load(home)
    home.scopes_file.write_text(SCOPES.replace("high", "huge"))
    with pytest.raises(PolicyError, match=r"scopes\.toml line 1: .*read:boats"):
        Policy.load(home)


def test_a_change_is_told_once(home: Home) -> None:
    """Each save of either file is told by the next look, and only that one."""
    policy = Policy.load(home)
    assert not policy.changed(home)
    home.policy_file.write_text("broken")
    assert policy.changed(home)
    assert not policy.changed(home)
    home.scopes_file.write_text(SCOPES)
    assert policy.changed(home)
    assert not policy.changed(home)
    home.policy_file.unlink()
    assert policy.changed(home)


def test_a_rename_with_the_same_size_and_time_is_a_change(home: Home) -> None:
    """Editors replace files by renaming; that is noticed even within one tick."""
    home.policy_file.write_text(RULE)
    policy = Policy.load(home)
    found = home.policy_file.stat()
    other = home.config / "other"
    other.write_text(RULE.replace("Because", "becausE"))
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(home.policy_file)
    assert policy.changed(home)


@pytest.mark.parametrize("name", ["policy.cedar", "scopes.toml"])
def test_what_is_no_small_text_file_is_refused(home: Home, name: str) -> None:
    """A folder, a pipe, a file too large or not UTF-8 is told, and never waited for."""
    path = home.config / name
    path.mkdir()
    with pytest.raises(PolicyError, match=name):
        Policy.load(home)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(PolicyError, match="not a plain file"):
        Policy.load(home)
    path.unlink()
    path.write_bytes(b"# " + b"x" * 300_000)
    with pytest.raises(PolicyError, match="larger than 256 KiB"):
        Policy.load(home)
    path.write_bytes(b"#\n\xff\xfe")
    with pytest.raises(PolicyError, match="line 2: it is not UTF-8"):
        Policy.load(home)
