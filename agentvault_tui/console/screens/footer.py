"""Which keys the bottom line names: those that make sense where the focus is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Place = Literal["agents", "details", "audit", "filter", "naming", "day"]

_LAST: Final = (("?", "keys"), ("^q", "quit"))
"""They lead to all the others, and out: what is too much gives way to them."""


@dataclass(frozen=True, slots=True)
class Focus:
    """What the choice depends on."""

    place: Place
    agent: Literal["none", "active", "revoked"] = "none"
    """How the agent under the cursor stands."""
    waiting: bool = False
    follows: bool = True
    panic: bool = False
    decides: bool = True
    """Whether decisions are taken here."""
    past: bool = False


def keys(focus: Focus) -> tuple[tuple[str, str], ...]:
    """Return keys and words, the most useful first, help and quit last."""
    if focus.place == "naming":
        return (("Enter", "save"), ("Esc", "back to the filter"))
    if focus.place == "filter":
        typed = (("Tab", "complete"), ("ctrl+s", "save"), ("ctrl+o", "saved"))
        return (("Enter", "keep"), ("Esc", "clear"), *typed)
    follow = ("f", "hold" if focus.follows else "follow")
    found: list[tuple[str, str]] = []
    if focus.waiting:
        found.append(("s", "step-ups"))
    if focus.place == "audit":
        found += [follow, ("Enter", "event"), ("o", "agent")]
    elif focus.agent != "none":
        if focus.decides:
            revoked = focus.agent == "revoked"
            found.append(("u", "restore") if revoked else ("r", "revoke"))
        found.append(("Enter", "agent"))
    found.append(("/", "filter"))
    if focus.decides:
        found.append(("!", "lift panic" if focus.panic else "panic"))
    found.append((":", "command"))
    if focus.place != "audit":
        found.append(follow)
    found += [("L", "audit"), ("t", "time"), ("Tab", "pane")]
    return (*found, ("y", "copy id"), *_LAST)


def agent_keys(focus: Focus) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = [("t", "now")] if focus.past else []
    found.append(("Esc", "back"))
    if focus.decides and focus.agent != "none":
        revoked = focus.agent == "revoked"
        found.append(("u", "restore") if revoked else ("r", "revoke"))
    if focus.waiting:
        found.append(("s", "step-ups"))
    if focus.place == "day":
        found.append(("h l", "quarter"))
    if focus.place == "audit":
        found.append(("Enter", "event"))
    found += [("Tab", "pane"), ("f", "hold" if focus.follows else "follow")]
    found += [("L", "audit"), (":", "command"), ("y", "copy id")]
    if focus.decides:
        found.append(("!", "lift panic" if focus.panic else "panic"))
    return (*found, *_LAST)


def audit_keys(
    *,
    typing: bool,
    asking: bool,
    waiting: bool,
    follows: bool,
    open: bool,  # noqa: A002 - the word of the screen
    inside: bool,
    decides: bool,
    past: bool = False,
) -> tuple[tuple[str, str], ...]:
    """Return keys and words for the audit screen, the most useful first."""
    if typing:
        return (("Enter", "keep"), ("Esc", "clear"))
    if asking:
        return (("Enter", "go"), ("Esc", "back"))
    found = [("t", "now")] if past else []
    found += [("s", "step-ups")] if waiting else []
    if open:
        found += [("[ ]", "story"), ("v", "raw"), ("Esc", "back")]
        found += [] if inside else [("Tab", "into it")]
    else:
        found.append(("Enter", "event"))
    found += [("f", "hold" if follows else "follow"), ("g", "go to"), ("/", "filter")]
    if decides:
        found.append(("r", "revoke agent"))
    found += [("e", "export"), ("o", "agent"), ("y", "copy id")]
    if not open:
        found.append(("Esc", "home"))
    return (*found, *_LAST)
