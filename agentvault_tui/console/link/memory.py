"""This console's own memory of the last ledger head it saw, one small file a socket.

The broker's database and the head it keeps beside it can be replaced together; what a
console remembers elsewhere still tells that a tail is missing or an older copy stands
in its place.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from agentvault_tui.errors import SettingsError
from agentvault_tui.home import private_file, private_folder


@dataclass(frozen=True, slots=True)
class Head:
    """One link of the chain, as it was seen."""

    seq: int
    hash: str


class Memory:
    """The last head seen through one socket."""

    def __init__(self, socket: Path, folder: Path | None = None) -> None:
        self._socket = str(socket.absolute())
        self._folder = folder or platformdirs.user_state_path("agentvault") / "console"
        key = hashlib.sha256(self._socket.encode()).hexdigest()[:16]
        self._file = self._folder / f"{key}.json"
        self._kept: Head | None = None

    def recall(self) -> Head | None:
        """Return the head seen last; none when there is no readable memory."""
        try:
            data = json.loads(self._file.read_bytes())
            return Head(int(data["seq"]), str(data["hash"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, head: Head) -> bool:
        """Remember *head*, 0600; tell whether that worked."""
        if head == self._kept:
            return True
        data = {"socket": self._socket, "seq": head.seq, "hash": head.hash}
        new = self._file.with_suffix(".new")
        try:
            private_folder(self._folder)
            private_file(new)
            new.write_text(json.dumps(data))
            new.replace(self._file)  # whole or not at all, should we be killed
        except (OSError, SettingsError):
            return False
        self._kept = head
        return True

    def tidy(self) -> None:
        """Forget the heads of sockets whose folder is gone: a demo's, mostly."""
        for file in self._folder.glob("*.json"):
            try:
                socket = Path(json.loads(file.read_bytes())["socket"])
                if not socket.parent.exists():
                    file.unlink()
            except (OSError, ValueError, KeyError, TypeError):
                continue
