"""Reads the two files a policy is made of, from the home or from the package."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple, Self

from agentvault_tui.errors import PolicyError
from agentvault_tui.home import Home
from agentvault_tui.policy.catalogue import Catalogue

MAX_FILE: Final = 256 * 1024

Signature = tuple[tuple[int, ...] | None, ...]
"""What `stat` says about both files: cheap enough to ask each second."""


class Texts(NamedTuple):
    """What the home's two files say; nothing for one that is not there."""

    policy: str | None = None
    scopes: str | None = None

    @classmethod
    def read(cls, home: Home) -> Self:
        """Read both files.

        Raises:
            PolicyError: one is no plain file, too large, unreadable, or not UTF-8.
        """
        return cls(read_text(home.policy_file), read_text(home.scopes_file))

    def gone(self, now: Texts) -> tuple[str, ...]:
        """Return the names of the files that are here and not *now*."""
        names = ("policy.cedar", "scopes.toml")
        pairs = zip(names, self, now, strict=True)
        return tuple(
            name for name, mine, theirs in pairs if mine is not None and theirs is None
        )

    def digest(self) -> str:
        """Return the SHA-256 of both, in hexadecimal."""
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()


def shipped_policy() -> str:
    """Return the policy that ships with AgentVault."""
    return (resources.files(__package__) / "default.cedar").read_text("utf-8")


def shipped_scopes() -> str:
    """Return the ``scopes.toml`` that ships with AgentVault."""
    return (resources.files(__package__) / "scopes.toml").read_text("utf-8")


def shipped_catalogue() -> Catalogue:
    """Return the catalogue that ships with AgentVault."""
    return Catalogue.parse(shipped_scopes(), "scopes.toml")


def read_text(path: Path) -> str | None:
    """Read one file of the home; nothing when it is not there.

    Raises:
        PolicyError: it is no plain file, too large, unreadable, or not UTF-8.
    """
    try:
        # Without O_NONBLOCK a FIFO in the file's place would hold the broker up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PolicyError(f"{path} cannot be read ({error.strerror})") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PolicyError(f"{path} is not a plain file", "put a text file there")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_FILE + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE:
        raise PolicyError(f"{path} is larger than {MAX_FILE // 1024} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PolicyError(
            f"{path} line {line}: it is not UTF-8", "save the file as UTF-8"
        ) from error


def signature(home: Home) -> Signature:
    """Say enough about both files to notice any change to either."""
    return tuple(_stat(path) for path in (home.policy_file, home.scopes_file))


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
