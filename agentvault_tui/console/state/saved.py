"""Saved filters: one small file of mode 0600 in the vault's configuration folder.

It is the console's own; nothing else is written there. Whatever someone wrote into it
by hand is read with care, and a file that cannot be read is never written over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agentvault_tui.errors import SettingsError
from agentvault_tui.home import private_folder, put_private
from agentvault_tui.text import visible

FILE: Final = "filters.json"
LONGEST_NAME: Final = 40
LONGEST: Final = 500
_MOST: Final = 200
_LARGEST: Final = 1_000_000
BUILT_IN: Final[Mapping[str, str]] = {
    "needs a person": "status:waiting",
    "denied lately": "outcome:denied since:10m",
    "high risk": "risk:high",
}
"""There for everyone; one saved under the same name takes its place."""


class SavedFilters:
    """Filters with names, read again each time: other consoles save too."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._in_memory: dict[str, str] = {}
        """The filters without a folder."""

    @property
    def file(self) -> Path | None:
        return self._folder / FILE if self._folder else None

    def all(self) -> dict[str, str]:
        """Return every filter by its name, the operator's own first."""
        own = self.own()
        return own | {n: text for n, text in BUILT_IN.items() if n not in own}

    def own(self) -> dict[str, str]:
        """Return the saved filters; none when the file cannot be read."""
        try:
            return self._read()
        except (OSError, ValueError):
            return {}

    def save(self, name: str, text: str) -> str:
        """Store *text* under *name*; returns the fault, or nothing."""
        name, text = name.strip(), text.strip()
        if not name or not text:
            return "A filter needs a name and something to ask for."
        if visible(name, LONGEST_NAME) != name:
            return f"A name has at most {LONGEST_NAME} characters, all of them visible."
        if visible(text, LONGEST) != text:
            return f"A filter has at most {LONGEST} characters, all of them visible."
        return self._change({name: text}, add=True)

    def delete(self, name: str) -> str:
        """Delete a filter; returns the fault, or nothing."""
        if name not in self.own():
            built_in = name in BUILT_IN
            return "That one is built in and stays." if built_in else "It is gone."
        return self._change({name: ""}, add=False)

    def _change(self, changed: Mapping[str, str], *, add: bool) -> str:
        try:
            remaining = {
                n: text for n, text in self._read().items() if n not in changed
            }
            if add and len(remaining) >= _MOST:
                return f"There are {_MOST} saved filters already: delete one first."
            self._write({**changed, **remaining} if add else remaining)
        except ValueError:
            return f"{self.file} cannot be read: mend it or move it away, then save."
        except (OSError, SettingsError) as error:
            return f"{self.file} cannot be written ({type(error).__name__})."
        return ""

    def _read(self) -> dict[str, str]:
        if self.file is None:
            return dict(self._in_memory)
        try:
            with self.file.open("rb") as file:
                raw = file.read(_LARGEST + 1)
        except FileNotFoundError:
            return {}
        try:
            data = json.loads(raw)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        filters = data.get("filters") if isinstance(data, dict) else None
        if not isinstance(filters, dict) or len(raw) > _LARGEST:
            raise ValueError("no filters in it")
        return {
            str(visible(name, LONGEST_NAME)): str(visible(text, LONGEST))
            for name, text in filters.items()
            if isinstance(text, str) and name and text
        }

    def _write(self, filters: Mapping[str, str]) -> None:
        if self.file is None or self._folder is None:
            self._in_memory = dict(filters)
            return
        private_folder(self._folder)
        content = json.dumps({"filters": filters}, indent=2) + "\n"
        put_private(self.file, content.encode(), replace=True)
