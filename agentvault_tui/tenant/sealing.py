"""Seals the tenant's secrets at rest, with a key kept apart from its database."""

from __future__ import annotations

from typing import ClassVar

from agentvault_tui import sealing


class TenantSeal(sealing.Seal):
    """The seal of the embedded tenant's store."""

    WHOSE: ClassVar[str] = "tenant"
    LOST: ClassVar[str] = "one-time codes cannot be checked"
