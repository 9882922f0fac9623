"""The texts that a policy is made of: rules, catalogue, limits."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from agentvault_tui.policy.catalogue import Catalogue

FILES: Final = ("policy.cedar", "scopes.toml", "limits.toml")


class PolicyTexts(NamedTuple):
    """What the home's files say, by `FILES`; None for one that is not there."""

    policy: str | None = None
    scopes: str | None = None
    limits: str | None = None

    def gone(self, now: PolicyTexts) -> tuple[str, ...]:
        """Return the names of the files that are missing *now*."""
        pairs = zip(FILES, self, now, strict=True)
        return tuple(
            name for name, mine, theirs in pairs if mine is not None and theirs is None
        )

    def effective(self) -> dict[str, str]:
        """Return what decides, by name: for a file that is not there the shipped."""
        policy = shipped_policy() if self.policy is None else self.policy
        scopes = shipped_scopes() if self.scopes is None else self.scopes
        limits = {} if self.limits is None else {"limits": self.limits}
        return {"policy": policy, "scopes": scopes, **limits}

    def plan_digest(self, in_force: str) -> str:
        """Return the digest of a plan: over these texts and the version in force."""
        planned = json.dumps([self.effective(), in_force], sort_keys=True)
        return "sha256:" + hashlib.sha256(planned.encode()).hexdigest()

    def digest(self) -> str:
        """Return the SHA-256 of the texts, in hexadecimal."""
        texts = self if self.limits is not None else self[:2]
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


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
