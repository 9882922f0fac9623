"""What stands on a tenant, as far as it concerns AgentVault: plain data, no secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentvault_tui.vault.provision.needs import Systems
from agentvault_tui.vault.reply import Json


@dataclass(frozen=True, slots=True)
class Unused:
    """One object that an earlier version made, and that nothing uses."""

    address: str
    title: str
    identity: str
    """Its id on the tenant."""
    held: str = ""
    """Why it is not ours to delete; empty: nothing speaks against it."""


@dataclass(frozen=True, slots=True)
class Found:
    """One reading of the tenant."""

    systems: Systems
    objects: Mapping[str, Json] = field(default_factory=dict)
    """Address to the object, brought to the members that rules name."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """Address to its id on the tenant."""
    marked: Mapping[str, str] = field(default_factory=dict)
    """Address of every client with our mark to its name, wanted or not."""
    by_hand: Mapping[str, str] = field(default_factory=dict)
    """What only a person can do there: address to what."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Address of a factor that the tenant's plan has no more: what it says."""
    unused: tuple[Unused, ...] = ()
    """What earlier versions made, in the order in which it is to be deleted."""
    remembering: tuple[str, ...] = ()
    """Names of others' Actions in the login that let a browser be remembered."""
    misfiled: Mapping[str, str] = field(default_factory=dict)
    """Address of a grant that stands for another kind of subject: for which."""
    adopted: Mapping[str, str] = field(default_factory=dict)
    """Address of a client that is ours by its mark alone to its id.

    Whoever may edit one application of the tenant can give it that mark.
    """
