"""A second verifier, written from docs/ledger-format.md alone; imports nothing of ours.

Run it on an export: ``python independent_verifier.py FILE``; it prints the head.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path


def genesis(ledger: str) -> bytes:
    """Section "Genesis"."""
    return hashlib.sha256(b"agentvault ledger v1\n" + ledger.encode("ascii")).digest()


def link(previous: bytes, number: int, body: bytes) -> bytes:
    """Section "Link"."""
    hashed = hashlib.sha256()
    hashed.update(b"agentvault event v1\n")
    hashed.update(previous)
    hashed.update(number.to_bytes(8, "big"))
    hashed.update(len(body).to_bytes(8, "big"))
    hashed.update(body)
    return hashed.digest()


def verify(path: Path) -> tuple[int, str]:
    """Section "Export": return the head, or raise ValueError with the bad number."""
    with path.open("rb") as file:
        header = json.loads(file.readline())
        number = header["from"]["seq"]
        digest = bytes.fromhex(header["from"]["hash"].removeprefix("sha256:"))
        if number == 0 and digest != genesis(header["ledger"]):
            raise ValueError("genesis")
        for line in file:
            number += 1
            if line[:16] != b'{"hash":"sha256:' or line[80:82] != b'",':
                raise ValueError(number)
            body = b"{" + line[82:-1]
            digest = link(digest, number, body)
            if (
                digest.hex().encode() != line[16:80]
                or json.loads(body)["seq"] != number
            ):
                raise ValueError(number)
    if header["to"] != {"seq": number, "hash": "sha256:" + digest.hex()}:
        raise ValueError("end")
    return number, "sha256:" + digest.hex()


if __name__ == "__main__":
    print(*verify(Path(sys.argv[1])))
