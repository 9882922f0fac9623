"""A person at a plain console: types lines, and reads what is said, over pipes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from support.patience import PATIENT

from agentvault_tui.console.desk import ARM_SECONDS


class LinePerson:
    """Reads line by line; whoever waits for what never comes is stopped by pytest."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []

    def hears(self, words: str) -> str:
        """Read until a line has those *words*, and return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"{words!r} not said: {self.said}")

    def types(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def decides(self, line: str, word: str) -> None:
        """Ask for a decision, read what it is about, and confirm it."""
        self.types(line)
        self.hears(f"Type {word} to ")
        # A word within the arm delay was typed before it was read, and counts as no.
        time.sleep(ARM_SECONDS + 0.05)
        self.types(word)

    def leaves(self) -> int:
        self.types("quit")
        return self.process.wait(PATIENT)


@contextmanager
def at_lines(line: Sequence[str], env: Mapping[str, str]) -> Iterator[LinePerson]:
    """Run *line* with both ends pipes, and leave nothing of it behind."""
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(env)
    ) as process:
        try:
            yield LinePerson(process)
        finally:
            process.kill()
