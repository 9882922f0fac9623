"""The head stored outside the database, which shows a lost tail or an older copy.

It is written after the commit it names, so after a crash it can only be behind.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.ledger.records import Head

_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Witness:
    """A head, and the ledger it belongs to."""

    ledger: str
    head: Head
    index: str | None = None
    """The SHA-256 of the text index, while no broker runs that was stopped in order."""


def read_witness(path: Path) -> Witness | None:
    """Return the file's content; LedgerDamagedError: nothing readable."""
    try:
        value = json.loads(path.read_bytes())
        ledger, seq, digest = value["ledger"], value["seq"], value["hash"]
        if type(seq) is int and seq >= 0 and _HASH.fullmatch(digest):
            index = value.get("index")
            index = index if isinstance(index, str) else None
            return Witness(str(ledger), Head(seq, digest), index)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise LedgerDamagedError(
        f"{path}, the ledger's head kept outside the database, is unreadable",
        "check who changed it; verify the ledger, then accept it as it is",
    )


def encode_witness(witness: Witness) -> bytes:
    """Return the form that `read_witness` reads."""
    value = {"ledger": witness.ledger, **asdict(witness.head)}
    if witness.index:
        value["index"] = witness.index
    return json.dumps(value).encode() + b"\n"


def write_witness(path: Path, witness: Witness) -> None:
    """Replace the file in one step, mode 0600, on disk before it has its name."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, encode_witness(witness))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
