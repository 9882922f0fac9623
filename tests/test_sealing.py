"""What a seal's associated data binds."""

from __future__ import annotations

import pytest

from agentvault_tui.errors import TenantError
from agentvault_tui.tenant.sealing import TenantSeal


def test_owner_and_version_do_not_run_together() -> None:
    """Version 1 of ``a1`` is not version 11 of ``a``, though they spell the same."""
    seal = TenantSeal(bytes(32))
    box = seal.close("seed", "a1", 1, b"JBSWY3DP")
    assert seal.open("seed", "a1", 1, box) == b"JBSWY3DP"
    with pytest.raises(TenantError, match="does not open"):
        seal.open("seed", "a", 11, box)
