"""Step-ups of the wire: who decides them, and how often they are approved."""

from __future__ import annotations

from datetime import datetime

from support.wire_shapes import filled

from agentvault_tui.operator_api.displayer import Displayer
from agentvault_tui.operator_api.stepups import (
    ApprovalsInfo,
    HeldRequestInfo,
    RepeatInfo,
    StepUpInfo,
)
from agentvault_tui.text import Shown


def test_one_person_or_several_decide() -> None:
    """The wire names one person or a list; both are read as people, displayable."""
    one, two = {"sub": "1", "name": "ann"}, {"sub": "\x1b2", "name": ""}
    for by, names in ((one, ["ann"]), ([one, two], ["ann", ""]), (None, [])):
        sent = filled(StepUpInfo, {"decided_by": by})
        shown = Displayer().read(sent, StepUpInfo[Shown, datetime, Shown])
        assert [each.name for each in shown.deciders] == names
        assert "\x1b" not in "".join(each.sub for each in shown.deciders)


def test_approvals_name_who_has_and_who_may() -> None:
    """A person without a name is named by the subject."""
    by = [{"sub": "1", "name": "ann"}, {"sub": "auth0|2", "name": ""}]
    sent = filled(ApprovalsInfo, {"have": 2, "need": 3, "by": by, "may": "any admin"})
    assert sent.words == "2 of 3 (ann, auth0|2); may still: any admin"
    nobody = filled(ApprovalsInfo, {"have": 0, "need": 2, "may": "any admin"})
    assert nobody.words == "0 of 2; may still: any admin"


def test_a_repeat_names_its_bounds_displayable() -> None:
    """A name that the broker sends is drawn like any other text of others."""
    bounds = {"amount": {"max": 9000}, "\x1b[2J": {"max": 1}}
    sent = filled(RepeatInfo, {"count": 3, "within": 60, "bounds": bounds})
    words = Displayer().read(sent, RepeatInfo[Shown, datetime]).words
    assert words.startswith("the next 3 like it within 60 s, amount up to 9,000")
    assert "\x1b" not in words


def test_a_held_request_is_drawn_whole() -> None:
    """Names and values of headers are displayable; the body is described as it came."""
    given = {
        "method": "POST",
        "url": "https://x.test/?q=" + "x" * 5000,
        "headers": {"x-\x07": "\x1b]0;"},
        "body_kind": "opaque",
        "body_bytes": 3,
        "body_type": "a\x1b/b",
    }
    sent = filled(HeldRequestInfo, given)
    shown = Displayer().read(sent, HeldRequestInfo[Shown, datetime])
    assert shown.url == given["url"]
    assert "\x07" not in "".join(shown.headers)
    assert "\x1b" not in "".join(shown.headers.values())
    assert shown.described == sent.described
    assert (shown.described.kind, shown.described.size) == ("opaque", 3)
