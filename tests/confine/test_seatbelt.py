"""The profile for macOS says what is meant; no macOS runs it here."""

from __future__ import annotations

from pathlib import Path

from agentvault_tui.confine.protected import Protection
from agentvault_tui.confine.seatbelt import WEAKER, build_profile
from agentvault_tui.confine.view import View

PROJECT, HOME = Path("/Users/a/project"), Path("/Users/a/vault/homes/agt_1")


def profile(protection: Protection | None = None, **more: object) -> str:
    given = protection or Protection()
    view = View(PROJECT, HOME, (Path("/data"),), (PROJECT,), (Path("/opt/n"),), given)
    return build_profile(view, [7718, 7717])


def balanced(text: str) -> bool:
    """Tell whether each parenthesis outside of strings has its other half."""
    depth, quoted, skip = 0, False, False
    for character in text:
        if skip:
            skip = False
        elif quoted and character == "\\":
            skip = True
        elif character == '"':
            quoted = not quoted
        elif not quoted:
            depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0 and not quoted


def test_everything_is_denied_but_for_what_is_listed() -> None:
    """The first rule denies; what writes and what connects has its places."""
    lines = profile().splitlines()
    assert lines[:2] == ["(version 1)", "(deny default)"]
    writes = [one for one in lines if one.startswith("(allow file-write*")]
    assert writes == [f'(allow file-write* (subpath "{HOME}") (subpath "{PROJECT}"))']
    network = [one for one in lines if "network" in one]
    assert network == [
        f'(allow network-outbound (remote ip "localhost:{port}"))'
        for port in (7718, 7717)
    ]


def test_nobody_acts_for_the_command() -> None:
    """No service that resolves names, opens programs or checks certificates."""
    text = profile()
    for name in ("mDNSResponder", "trustd", "lsd", "launchservices", "AppleEvents"):
        assert name.lower() not in text.lower()
    assert "appleevent-send" not in text
    assert "lsopen" not in text


def test_protected_paths_are_denied_last() -> None:
    """The last rule that matches counts; missing ones need no stand-in there."""
    found = Protection([PROJECT / ".git/hooks"], [PROJECT / ".git"])
    found.missing[PROJECT / ".claude"] = "folder"
    lines = profile(found).splitlines()
    assert lines[-2] == (
        f'(deny file-write* (subpath "{PROJECT}/.git/hooks")'
        f' (subpath "{PROJECT}/.claude"))'
    )
    assert lines[-1] == f'(deny file-write-unlink (literal "{PROJECT}/.git"))'


def test_a_path_cannot_end_its_string() -> None:
    """A folder's name may have quotes, backslashes and parentheses."""
    evil = Path('/Users/a/x") (allow default) ("\\')
    view = View(evil, HOME, (), (evil,), (), Protection())
    text = build_profile(view, [1])
    assert balanced(text)
    assert balanced(profile())
    assert "(allow default)" not in text.replace('\\") (allow default)', "")


def test_what_does_not_hold_is_said() -> None:
    """Also that this was not run."""
    assert any("has not been run" in one for one in WEAKER)
