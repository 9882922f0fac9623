"""`agentvault limits`: limits in force, and whether call-outs answer."""

from __future__ import annotations

from typing import Any

import pytest
from support.wire_shapes import MOMENT, filled

from agentvault_tui.cli.status import _answers
from agentvault_tui.operator_api.limits import CallOutInfo


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({}, "not asked yet"),
        ({"asked_at": MOMENT, "ms": 12}, "2026-11-24T10:00:00Z: answered in 12 ms"),
        (
            {"asked_at": MOMENT, "ms": 12, "problem": "it answered 500"},
            "2026-11-24T10:00:00Z: it answered 500",
        ),
    ],
    ids=["never asked", "answered", "failed"],
)
def test_a_call_out_says_how_it_answered_last(last: dict[str, Any], said: str) -> None:
    """Not asked yet, how long the answer took, or what was wrong with it."""
    assert _answers(filled(CallOutInfo, last)) == said
