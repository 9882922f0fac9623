"""The console in the terminals people have: it opens, can be read, leaves no trace."""

from __future__ import annotations

import re
import signal

import pytest
from support.console_scenes import busy
from support.console_terminal import CTRL_Q, LEAVING, Open
from support.fake_operator import FakeOperator
from support.terminal import Terminal

TERMINALS = {
    "linux": {"TERM": "linux", "COLORTERM": ""},
    "screen": {"TERM": "screen", "COLORTERM": ""},
    "screen-256color": {"TERM": "screen-256color", "COLORTERM": ""},
    "tmux-256color": {"TERM": "tmux-256color", "COLORTERM": ""},
    "xterm-256color": {"TERM": "xterm-256color"},
    "vt220": {"TERM": "vt220", "COLORTERM": ""},
    "LANG=C": {"TERM": "xterm-256color", "LANG": "C"},
    "NO_COLOR": {"TERM": "xterm-256color", "NO_COLOR": "1"},
}
_SGR = re.compile(r"\x1b\[([0-9;]*)m")


def _opened(screen: Terminal) -> None:
    for words in ("live", "STEP-UP", "payments-agent", "records-agent", "? keys"):
        screen.see(words)


def _colours(painted: str) -> str:
    """The richest way in which a colour is asked for."""
    asked = ";".join(_SGR.findall(painted))
    if re.search(r"[34]8;2;", asked):
        return "true"
    if re.search(r"[34]8;5;", asked):
        return "256"
    return "16" if re.search(r"(?:^|;)(?:[349]|10)[0-7](?:;|$)", asked) else "none"


@pytest.mark.parametrize(
    ("by", "kind"),
    [
        *(("ctrl+q", kind) for kind in TERMINALS),
        *(("SIGTERM", kind) for kind in ("linux", "xterm-256color")),
    ],
)
def test_it_opens_and_leaves_every_terminal_clean(
    fake: FakeOperator, terminal: Open, kind: str, by: str
) -> None:
    """Agents and the step-up line are there, in its colours and bytes; then nothing."""
    busy(fake)
    with terminal(**TERMINALS[kind]) as screen:
        _opened(screen)
        hidden = screen.unreadable
        if by == "ctrl+q":
            screen.write(CTRL_Q)
        else:
            screen.signal(signal.SIGTERM)
        assert screen.finish() == 0
    assert hidden == []
    assert all(sequence in screen.text for sequence in LEAVING)
    assert screen.text.rindex(LEAVING[0]) > screen.text.rindex("\x1b[?1049h")
    assert "Traceback" not in screen.text
    wanted = {"linux": "16", "screen": "16", "vt220": "16", "NO_COLOR": "none"}
    wanted |= {"screen-256color": "256", "tmux-256color": "256"}
    assert _colours(screen.text) == wanted.get(kind, "true")
    assert screen.painted.isascii() is (kind in {"LANG=C", "linux"})
