"""Server-sent events from chunks of bytes, many at a time.

As the HTML standard has it (section 9.2.6): fields may be split anywhere, lines end in
CR, LF or both, an event ends with an empty line, a comment begins with a colon.
Written for bursts: one pass over a chunk, no call for each line.
"""

from __future__ import annotations

import codecs
import re
from typing import Final, NamedTuple

_END: Final = re.compile(r"\r\n|\n|\r")
_PLAIN: Final = re.compile(r"(?:id: ?([^\n\0]*)\n)?event: ?([^\n]+)\ndata: ")
"""How nearly all events begin: these fields, in this order."""
_CAP: Final = 16 * 1024 * 1024
"""Characters one event may have; no broker of ours comes near."""


class Frame(NamedTuple):
    """One event."""

    kind: str
    id: str
    data: str


class OverlongError(ValueError):
    """An event that never ends."""


class Decoder:
    """Takes chunks, gives the events that are complete."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._kind = ""
        self._data: list[str] = []
        self._last_id = ""

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take a chunk.

        Raises:
            OverlongError: a line or an event is larger than any that is true.
        """
        text = self._rest + self._utf8.decode(chunk)
        frames: list[Frame] = []
        text, held = text[self._plain(text, frames) :], ""
        if frames and "\r" not in text and "\n\n" not in text and len(text) <= _CAP:
            self._rest = text  # the rest of an event comes with the next chunk
            return frames
        if text.endswith("\r"):  # an LF may follow
            text, held = text[:-1], "\r"
        lines = text.split("\n") if "\r" not in text else _END.split(text)
        self._rest = lines.pop() + held
        for line in lines:
            if not line:
                if self._data:
                    data = "\n".join(self._data)
                    frames.append(Frame(self._kind or "message", self._last_id, data))
                self._kind, self._data = "", []
            else:
                self._field(line)
        if len(self._rest) > _CAP or sum(map(len, self._data)) > _CAP:
            raise OverlongError
        return frames

    def _plain(self, text: str, frames: list[Frame]) -> int:
        """Take plain events for as long as there are; return where they end."""
        end = 0
        if self._kind or self._data or "\r" in text:
            return end
        while match := _PLAIN.match(text, end):
            begin = match.end()
            line = text.find("\n", begin)
            if line < 0 or not text.startswith("\n", line + 1):
                break  # it is not whole yet, or not plain
            given, kind = match.groups()
            if given is not None:
                self._last_id = given
            frames.append(Frame(kind, self._last_id, text[begin:line]))
            end = line + 2
        return end

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._last_id = value
