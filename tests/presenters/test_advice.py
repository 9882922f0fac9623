"""Advice in words: the same on its screen and on the command line."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from support.wire_shapes import filled

from agentvault_tui.operator_api.advice import AdviceEvidence, AdvisedChange
from agentvault_tui.presenters.advice import change_texts, evidence_facts

_DAY = {"since": "2026-11-24T10:00:00.000000Z", "until": "2026-11-25T10:00:00.000000Z"}
_SPAN = {"currency": "USD", "unit_known": True, "least": "1.00", "most": "9.00"}
_REFUSED = "would have refused {} requests in that time"


@pytest.mark.parametrize(
    ("seen", "effect"),
    [
        ({}, _REFUSED.format(0)),
        ({"would_have_refused": 1200}, _REFUSED.format("1,200")),
        ({"prompts_saved": 3}, "would have spared 3 prompts"),
        (
            {"would_have_refused": 1, "prompts_saved": 3, "amounts": [_SPAN]},
            f"{_REFUSED.format(1)}, would have spared 3 prompts of 1.00 to 9.00 USD",
        ),
    ],
)
def test_evidence_says_its_effect_whole(seen: dict[str, Any], effect: str) -> None:
    """Refusals are not left out where prompts would have been spared as well."""
    facts = dict(evidence_facts(filled(AdviceEvidence, {**_DAY, **seen})))
    assert facts["By it"] == effect


def test_evidence_says_when_it_was_used() -> None:
    """The window, the last use of all time, and the rhythm."""
    used = {"count": 12, "last_used_at": _DAY["since"], "rhythm": "daily"}
    facts = dict(evidence_facts(filled(AdviceEvidence, {**_DAY, **used})))
    window = "12 from 2026-11-24 10:00Z to 2026-11-25 10:00Z"
    assert facts["Uses"] == f"{window}, last used 2026-11-24 10:00Z, daily"
    facts = dict(evidence_facts(filled(AdviceEvidence, _DAY)))
    assert facts["Uses"].endswith("never used, no rhythm")


def test_a_limit_that_is_advised_reads_as_limits_toml() -> None:
    """What is to be put into the file is shown as it stands there."""
    limit = {"id": "advice-a", "scopes": ["read:web"], "within": "24h", "count": 6}
    ((what, text),) = change_texts(AdvisedChange(limit=limit))
    assert what == "limit"
    assert tomllib.loads(text) == {"limits": [limit]}
