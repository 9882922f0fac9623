"""One session of plain mode: reads commands, and confirms decisions by a word.

The same safety as in the dialogs: a decision is confirmed by typing its subject, it
acts on the content shown when it was asked for, and a line that comes within 600 ms (a
paste) confirms nothing.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import threading
from collections.abc import AsyncIterator
from typing import Final, TextIO

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.plain.announcer import Announcer, Command
from agentvault_tui.console.plain.decisions import DecisionCommands
from agentvault_tui.console.plain.reads import ReadCommands
from agentvault_tui.console.state.link_state import LinkState

_LONGEST: Final = 4_096
"""Characters of a line that count; a longer one is not typed."""
_CHUNK: Final = 4_096


async def typed_lines(descriptor: int) -> AsyncIterator[str]:
    """Yield each line of *descriptor* until it ends.

    A thread reads it, because a terminal, a pipe and a file each block in their own
    way; by `os.read`, because a thread left in a buffered read holds a lock that the
    interpreter wants at exit.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    def enqueue(item: str | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, item)

    def read() -> None:
        """Read lines in a thread of its own."""
        rest = b""
        try:
            while chunk := os.read(descriptor, _CHUNK):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    enqueue(line[:_LONGEST].decode(errors="replace"))
                rest = rest[:_LONGEST]
        except OSError:
            pass  # the terminal closed: the same as its end
        if rest:
            enqueue(rest.decode(errors="replace"))
        enqueue(None)

    threading.Thread(target=read, name="typed lines", daemon=True).start()
    while (line := await queue.get()) is not None:
        yield line


_USAGE: Final = 26
"""Cells of the column of commands in the help."""
_ALSO: Final = {"?": "help", "exit": "quit", "q": "quit"}
_UNREAD: Final = frozenset(
    {"events", "follow", "help", "hold", "quit", "status", "who"}
)
"""Commands that need nothing of the broker."""


class PlainSession:
    """One session; `take` a line, the `announcer` prints the events."""

    def __init__(self, desk: Desk, out: TextIO) -> None:
        self.desk = desk
        self.announcer = Announcer(desk.mirror, out)
        self.reads = ReadCommands(desk, self.announcer)
        self.decides = DecisionCommands(desk, self.reads, self.announcer)
        self.over = False
        self._commands = (
            *self.reads.commands(),
            *self.decides.commands(),
            Command("help", "these commands", self._help),
            Command("quit", "leave; the broker goes on", self._quit),
        )
        self._by_word = {command.word: command for command in self._commands}

    async def run(self, descriptor: int, *, stay: bool) -> None:
        """Announce and read commands until quit, or the end of input unless *stay*."""
        self.say("AgentVault, line by line. Type help for the commands, quit to leave.")
        tasks = {
            asyncio.create_task(self.announcer.run()),
            asyncio.create_task(self._take_all(descriptor, stay=stay)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_all(self, descriptor: int, *, stay: bool) -> None:
        async for line in typed_lines(descriptor):
            await self.take(line)
            if self.over:
                return
        if stay:
            self.say("The input has ended. This goes on telling what happens.")
            await asyncio.Event().wait()

    def say(self, *lines: str) -> None:
        self.announcer.say(*lines)

    async def take(self, line: str) -> None:
        """Carry out one line, as the answer that is waited for or as a command."""
        if self.decides.waits:
            await self.decides.answer(line.strip())
            return
        word, _, rest = line.strip().partition(" ")
        if not word:
            return
        word = word.lower()
        command = self._by_word.get(_ALSO.get(word, word))
        self.reads.turn()
        if command is None:
            near = difflib.get_close_matches(word, self._by_word, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            shown = self.desk.mirror.intake.shown(word, 40)
            self.say(f"There is no command {shown}. {hint}Type help for all there are.")
            return
        if command.word in _UNREAD or await self._read():
            await command.act(rest.strip())

    async def _read(self) -> bool:
        """Wait for the first snapshot, so that unknown is not printed as none."""
        mirror, changed = self.desk.mirror, asyncio.Event()
        mirror.listeners.add(changed.set)
        try:
            while not mirror.loaded and mirror.link.state is LinkState.CONNECTING:
                await changed.wait()
                changed.clear()
        finally:
            mirror.listeners.discard(changed.set)
        if not mirror.loaded:
            why = f": {mirror.link.reason}" if mirror.link.reason else ""
            self.say(f"Nothing is known yet. The link is {mirror.link.state}{why}.")
        return mirror.loaded

    async def _help(self, _: str) -> None:
        for command in self._commands:
            self.say(f"{command.usage.ljust(_USAGE)} {command.does}")
        self.say(
            "ID is a step-up's id or its four-letter fingerprint.",
            "A filter is as in the console: outcome:denied agent:mail since:10m",
        )

    async def _quit(self, _: str) -> None:
        self.over = True
