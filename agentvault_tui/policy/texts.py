"""The policy and catalogue texts that ship with AgentVault."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from typing import NamedTuple

from agentvault_tui.policy.catalogue import Catalogue


class PolicyTexts(NamedTuple):
    """What ``policy.cedar`` and ``scopes.toml`` say; None for one that is not there."""

    policy: str | None = None
    scopes: str | None = None

    def gone(self, now: PolicyTexts) -> tuple[str, ...]:
        """Return the names of the files that are missing *now*."""
        names = ("policy.cedar", "scopes.toml")
        pairs = zip(names, self, now, strict=True)
        return tuple(
            name for name, mine, theirs in pairs if mine is not None and theirs is None
        )

    def effective(self) -> dict[str, str]:
        """Return what decides, by name: for a file that is not there the shipped."""
        policy = shipped_policy() if self.policy is None else self.policy
        scopes = shipped_scopes() if self.scopes is None else self.scopes
        return {"policy": policy, "scopes": scopes}

    def plan_digest(self, in_force: str) -> str:
        """Return the digest of a plan: over these texts and the version in force."""
        planned = json.dumps([self.effective(), in_force], sort_keys=True)
        return "sha256:" + hashlib.sha256(planned.encode()).hexdigest()

    def digest(self) -> str:
        """Return the SHA-256 of both texts, in hexadecimal."""
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()


def shipped_policy() -> str:
    """Return the policy that ships with AgentVault.

    Returns:
        Cedar.
    """
    return (resources.files(__package__) / "default.cedar").read_text("utf-8")


def shipped_scopes() -> str:
    """Return the ``scopes.toml`` that ships with AgentVault."""
    return (resources.files(__package__) / "scopes.toml").read_text("utf-8")


def shipped_catalogue() -> Catalogue:
    """Return the catalogue that ships with AgentVault.

    Returns:
        a catalogue of every scope it has.
    """
    return Catalogue.parse(shipped_scopes(), "scopes.toml")
