"""The texts that a policy is made of: rules, catalogue, limits, own scopes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from agentvault_tui.errors import PolicyError
from agentvault_tui.policy.catalogue import Catalogue

SCOPES_FOLDER: Final = "scopes.d"
FILES: Final = ("policy.cedar", "scopes.toml", "limits.toml", SCOPES_FOLDER)


class PolicyTexts(NamedTuple):
    """The texts of the home's files, by `FILES`; None for one that does not exist."""

    policy: str | None = None
    scopes: str | None = None
    limits: str | None = None
    own_scopes: str | None = None
    """The files of ``scopes.d``, as `pack_files` writes them."""

    def gone(self, now: PolicyTexts) -> tuple[str, ...]:
        """Return the names of the files that are missing *now*.

        Without a file of own scopes each use of these is denied: that is an edit.
        """
        pairs = zip(FILES[:3], self, now, strict=False)
        return tuple(
            name for name, mine, theirs in pairs if mine is not None and theirs is None
        )

    def effective(self) -> dict[str, str]:
        """Return the active texts, by name: for a missing file the shipped one."""
        policy = shipped_policy() if self.policy is None else self.policy
        scopes = shipped_scopes() if self.scopes is None else self.scopes
        more = {"limits": self.limits, "own_scopes": self.own_scopes}
        optional = {name: text for name, text in more.items() if text is not None}
        return {"policy": policy, "scopes": scopes, **optional}

    def catalogue(self, sources: tuple[str, ...] = FILES) -> Catalogue:
        """Parse the scopes of these texts.

        Args:
            sources: the names of the texts in errors, in the order of `FILES`.

        Raises:
            PolicyError: a text is no catalogue, or defines a scope again.
        """
        catalogue = shipped_catalogue()
        if self.scopes is not None:
            catalogue = Catalogue.parse(self.scopes, sources[1])
        for name, text in unpack_files(self.own_scopes).items():
            catalogue = catalogue.extended(
                text, f"{sources[3]}/{name}", shipped_catalogue()
            )
        return catalogue

    def plan_digest(self, in_force: str) -> str:
        """Return the digest of a plan: over these texts and the version in effect."""
        planned = json.dumps([self.effective(), in_force], sort_keys=True)
        return "sha256:" + hashlib.sha256(planned.encode()).hexdigest()

    def digest(self) -> str:
        """Return the SHA-256 of the texts, in hexadecimal."""
        # Members that were added later count where they exist: digests stay the same.
        length = max(
            (n for n, text in enumerate(self, 1) if text is not None), default=0
        )
        texts = self[: max(2, length)]
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def pack_files(files: Mapping[str, str]) -> str | None:
    """Encode a folder's texts, by file name, as one; None for an empty folder."""
    return json.dumps(files, ensure_ascii=False, sort_keys=True) if files else None


def unpack_files(text: str | None) -> dict[str, str]:
    """Decode the result of `pack_files`.

    Raises:
        PolicyError: it is nothing that `pack_files` wrote.
    """
    try:
        files = json.loads(text or "{}")
    except (ValueError, RecursionError):
        files = None
    if not isinstance(files, dict) or any(
        type(one) is not str for one in files.values()
    ):
        raise PolicyError(f"the texts of {SCOPES_FOLDER} cannot be decoded")
    return files


def is_policy_file(path: str) -> bool:
    """Check whether a path in the home is a file that a policy is made of."""
    return path in FILES or path.startswith(f"{SCOPES_FOLDER}/")


def shipped_policy() -> str:
    """Return the policy that ships with AgentVault.

    Returns:
        Cedar.
    """
    return (resources.files(__package__) / "default.cedar").read_text("utf-8")


def shipped_scopes() -> str:
    """Return the ``scopes.toml`` that ships with AgentVault."""
    return (resources.files(__package__) / "scopes.toml").read_text("utf-8")


@cache
def shipped_catalogue() -> Catalogue:
    """Return the catalogue that ships with AgentVault, parsed once.

    Returns:
        a catalogue of every scope it has.
    """
    return Catalogue.parse(shipped_scopes(), "scopes.toml")
