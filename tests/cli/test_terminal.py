"""A yes at a terminal answers the question that stands there, and no other."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from support.terminal import Terminal

ASK = """
import array, fcntl, sys, termios, time
from agentvault_tui.cli.output import confirm
waiting = array.array("i", [0])
while not waiting[0]:
    fcntl.ioctl(sys.stdin, termios.FIONREAD, waiting)
    time.sleep(0.01)
clock = iter([0.0, 0.5, 10.0, 10.7]).__next__
print("agreed", confirm("Approve exactly this?", clock))
"""


@pytest.fixture
def asked() -> Iterator[Terminal]:
    """A program that asks once something was typed: so it always is typed ahead."""
    line = [sys.executable, "-c", ASK]
    with Terminal(line, {**os.environ, "TERM": "xterm"}) as terminal:
        yield terminal


def test_confirm_ignores_input_typed_before_the_question(asked: Terminal) -> None:
    """The person had not seen what it would have approved."""
    asked.write("y\ny\ny\n")
    asked.see("[y/N]")
    asked.write("n\n")
    assert asked.finish() == 0
    assert "agreed False" in asked.text


def test_confirm_asks_again_after_a_yes_within_600_ms(asked: Terminal) -> None:
    """It was on its way when the question came; a later one counts."""
    asked.write("\n")
    asked.see("[y/N]")
    asked.write("y\n")
    asked.see("That came before the question could be read.")
    asked.read_until(lambda text: text.count("[y/N]") == 2)
    asked.write("y\n")
    assert asked.finish() == 0
    assert "agreed True" in asked.text
