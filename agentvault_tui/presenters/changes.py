"""Changes of who may do what: their parts in a step-up, and their events."""

from __future__ import annotations

from agentvault_tui.model.event import LOOSENED
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.shapes import Json
from agentvault_tui.operator_api.stepups import StepUpInfo
from agentvault_tui.presenters.records import TextRow


def change_parts(info: StepUpInfo) -> tuple[Json, list[list[object]]]:
    """Return what a person decides about a change.

    Returns:
        its details; and the texts that it replaces: name, SHA-256 of before, of after.
    """
    details = {n: v for n, v in info.parameters.items() if v is not None}
    listed = details.pop("texts", None)
    details.pop("changes", None)  # what would outdate it
    if details.get("summary") == info.why:
        del details["summary"]
    texts = listed if isinstance(listed, list) else []
    return details, [one for one in texts if _is_text(one)]


def loosened(event: EventInfo) -> str:
    """Return the loosening of *event*, in a few words; empty without one."""
    return str(record_of(event).get("summary") or "")


def record_of(event: EventInfo) -> Json:
    """Return the description of the loosening in *event*; empty without one."""
    record = event.detail.get(LOOSENED)
    return record if isinstance(record, dict) else {}


def _is_text(one: object) -> bool:
    return isinstance(one, list) and len(one) == len(TextRow._fields)
