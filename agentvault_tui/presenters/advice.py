"""Words advice: its evidence in the history, and the change that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator

from msgspec import to_builtins

from agentvault_tui.amounts import render_spans
from agentvault_tui.operator_api.advice import AdviceEvidence, AdvisedChange
from agentvault_tui.presenters.moments import minute


def evidence_facts(seen: AdviceEvidence) -> Iterator[tuple[str, str]]:
    """Yield label and text of the uses, and of the difference it would have made.

    The moments in the texts are the broker's: make the texts displayable.
    """
    last = (
        f"last used {minute(seen.last_used_at)}" if seen.last_used_at else "never used"
    )
    rhythm = "no rhythm" if seen.rhythm == "none" else seen.rhythm
    uses = f"{seen.count:,} from {minute(seen.since)} to {minute(seen.until)}"
    yield "Uses", f"{uses}, {last}, {rhythm}"
    effects = []
    if seen.would_have_refused or not seen.prompts_saved:
        refused = f"{seen.would_have_refused:,} requests in that time"
        effects.append(f"would have refused {refused}")
    if seen.prompts_saved:
        of = f" of {render_spans(seen.amounts)}" if seen.amounts else ""
        effects.append(f"would have spared {seen.prompts_saved:,} prompts{of}")
    yield "By it", ", ".join(effects)


def change_texts(change: AdvisedChange) -> Iterator[tuple[str, str]]:
    """Yield name and text of each member; a limit is written as in ``limits.toml``."""
    for what, value in to_builtins(change).items():
        match value:
            case dict():
                lines = [f"{name} = {json.dumps(one)}" for name, one in value.items()]
                yield what, "\n".join(["[[limits]]", *lines])
            case list():
                yield what, " ".join(value)
            case bool():
                yield what, "yes"
            case _:
                yield what, str(value)
