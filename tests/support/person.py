"""A person at the console: presses keys, reads the screen, counts the keys."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from support.terminal import Terminal

from agentvault_tui.console.desk import ARM_SECONDS

COLUMNS, ROWS = 120, 40
_PATIENCE = 60.0
_TOO_SOON = "Too soon"
_BYTES = {"Enter": "\r", "Escape": "\x1b", "Tab": "\t", "C-q": "\x11"}
"""Named as tmux names them; any other key is itself."""


class Seat(Protocol):
    """Where the console runs."""

    def send(self, key: str) -> None:
        """Press one key."""
        ...

    def lines(self) -> list[str]:
        """Return what the screen shows now."""
        ...


class Operator:
    """Works at one seat."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.keys = 0

    def press(self, *keys: str) -> None:
        for key in keys:
            self.seat.send(key)
            self.keys += 1

    def decide(self, key: str, *texts: str) -> str:
        """Press *key* in a dialog that has just opened, until it shows *texts*.

        A dialog that changed a moment ago says that it was too soon: then look, and
        press again, as it says. A busy machine causes that, so only the key that
        counted is counted.
        """
        while True:
            self._look(ARM_SECONDS)
            self.press(key)
            shown = self.sees_one_of(_TOO_SOON, texts[0])
            if _TOO_SOON not in shown:
                return self.sees(*texts)
            self.keys -= 1

    def sees_one_of(self, *texts: str) -> str:
        """Wait until the screen shows any of *texts*, and return all it shows."""
        return self._until(lambda shown: any(text in shown for text in texts), texts)

    def sees(self, *texts: str) -> str:
        """Wait until the screen shows all of *texts*, and return all it shows.

        Words stand in columns: how many blanks there are between them does not count.
        """
        sought = [" ".join(text.split()) for text in texts]

        def seen(shown: str) -> bool:
            words = " ".join(shown.split())
            return all(text in words for text in sought)

        return self._until(seen, texts)

    def leave(self, *texts: str) -> None:
        """See *texts*, press Esc, and wait until none is on the screen any more."""
        self.sees(*texts)
        self._look(ARM_SECONDS)
        self.press("Escape")
        self._until(lambda shown: not any(text in shown for text in texts), texts)

    def _until(self, done: Callable[[str], bool], texts: tuple[str, ...]) -> str:
        deadline = time.monotonic() + _PATIENCE
        while not done(shown := "\n".join(self.seat.lines())):
            if time.monotonic() > deadline:
                raise AssertionError(f"{texts} not seen:\n{shown}")
        return shown

    def _look(self, seconds: float) -> None:
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            self.seat.lines()


class Bare:
    """A pseudo-terminal of its own."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def send(self, key: str) -> None:
        self._terminal.write(_BYTES.get(key, key))

    def lines(self) -> list[str]:
        self._terminal.read(0.05)
        return self._terminal.display


class _Tmux:
    """A window of a tmux server of its own."""

    def __init__(self, server: Sequence[str]) -> None:
        self._server = server

    def send(self, key: str) -> None:
        more = () if key in _BYTES else ("-l",)
        subprocess.run([*self._server, "send-keys", *more, key], check=True)

    def lines(self) -> list[str]:
        line = [*self._server, "capture-pane", "-p"]
        time.sleep(0.05)  # as on a bare terminal: a look is a process
        # What a pane holds may end in half a character while it is painted.
        found = subprocess.run(line, capture_output=True, check=True)
        return found.stdout.decode(errors="replace").splitlines()


@contextmanager
def bare(line: Sequence[str], env: Mapping[str, str]) -> Iterator[Operator]:
    """Run *line* on a bare terminal."""
    with Terminal(line, env, columns=COLUMNS, rows=ROWS) as terminal:
        yield Operator(Bare(terminal))


@contextmanager
def tmux(line: Sequence[str], env: Mapping[str, str]) -> Iterator[Operator]:
    """Run *line* inside tmux, as over SSH."""
    program = shutil.which("tmux") or "tmux"
    with tempfile.TemporaryDirectory(prefix="avt") as folder:
        server = [program, "-f", "/dev/null", "-S", str(Path(folder) / "s")]
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        kept = {name: text for name, text in env.items() if name != "TERM"}
        start = [*server, "new-session", "-d", *size, *line]
        subprocess.run(start, env=kept, check=True)
        try:
            yield Operator(_Tmux(server))
        finally:
            subprocess.run([*server, "kill-server"], check=False)
