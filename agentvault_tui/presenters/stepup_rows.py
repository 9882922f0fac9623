"""A step-up as rows: the request, earlier decisions, and the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec.structs import replace

from agentvault_tui.model.waiting import UNSEEN_PARTS
from agentvault_tui.presenters import stepups
from agentvault_tui.presenters.change_lines import NO_LINES, ShownLines, line_rows
from agentvault_tui.presenters.lines import EMPTY, LABEL, Pen, Piece, Row, wrap
from agentvault_tui.presenters.moments import clock_time, plural
from agentvault_tui.presenters.records import (
    BodyView,
    HeldRequest,
    StepUpRow,
    TextRow,
)
from agentvault_tui.presenters.stepups import (
    answered,
    ended,
    granted,
    no_limits,
)
from agentvault_tui.text import Shown, cell_width, visible, visible_lines

_WHEN_CELLS: Final = 11
_ENDED: Final = 30


class PastDecisions(NamedTuple):
    """The last decisions about the same agent and action, as far as they were read."""

    rows: tuple[StepUpRow, ...] | None = None
    """None until the broker has answered."""
    problem: Shown = Shown("")
    """Why it has not."""


@dataclass(frozen=True, slots=True)
class StepUpFacts:
    """A request as the dialog shows it."""

    row: StepUpRow
    owner: Shown
    before: PastDecisions
    now: datetime
    body: BodyView | None = None
    """Of a held call."""
    lines: ShownLines = NO_LINES
    """Of a change."""


_STEPUP, _CHANGE = "Step-up  ", "Change  "
_HEAD_LEAST: Final = 16
"""Cells below which a headline says too little to be shown."""


def head(row: StepUpRow, pen: Pen, about: str, width: int) -> Row:
    """Write the title within *width* cells: mark, and headline or name."""
    palette = pen.palette
    kind = _CHANGE if row.is_change else _STEPUP
    title: Row = ((kind, palette.title), (row.fingerprint, palette.accent))
    room = _title_room(row, width)
    if not about or room < _HEAD_LEAST:
        return title
    style = palette.text if about == row.headline else palette.muted
    return (*title, (f"  {pen.clip(about, room)}", style))


def _title_room(row: StepUpRow, width: int) -> int:
    kind = _CHANGE if row.is_change else _STEPUP
    return width - len(kind) - cell_width(row.fingerprint) - 8


def headline(row: StepUpRow, pen: Pen, width: int, room: int) -> list[Row]:
    """Write the wish over *width* cells, where a title of *room* cells would cut it."""
    if cell_width(row.headline) <= _title_room(row, room):
        return []
    return pen.paragraph(row.headline, width, pen.palette.strong)


def head_end(row: StepUpRow, pen: Pen, now: datetime, *, sure: bool) -> Row:
    """Write how long code and request last, or how the request ended."""
    if not row.open:
        used = stepups.stages_of(row).used
        word = used if row.status == "redeemed" else str(row.status)
        return ((word, pen.palette.muted),)
    request = pen.ends("request", row.remaining(now), sure=sure)
    if row.device is None:
        return request
    code = (row.device.expires_at - now).total_seconds()
    dot = (f" {pen.glyphs.separator} ", pen.palette.muted)
    return (*pen.ends("code", code), dot, *request)


def in_full(first: int, rows: int, room: int) -> str:
    """Say which of *rows* rows are in view, from the *first* on."""
    if rows <= room:
        return "in full"
    return f"in full, rows {first} to {min(first + room - 1, rows)} of {rows}"


def tally_row(facts: StepUpFacts, pen: Pen, width: int) -> Row:
    rows, problem = facts.before
    if rows is None:
        words = f"not known: {problem}" if problem else "asking"
    else:
        words = stepups.tally(rows)
    if facts.row.count > 1:
        words = f"asked {facts.row.count:,} times; {words}"
    return pen.fact("Before", (pen.clip(words, width - LABEL), pen.palette.text))


def listed_before(facts: StepUpFacts, pen: Pen, width: int) -> list[Row]:
    """Write each on a row: time, result and person, and the differences then."""
    palette, rows = pen.palette, facts.before.rows or ()
    endings = [pen.clip(ended(row), _ENDED) for row in rows]
    column = max((cell_width(ending) for ending in endings), default=0)
    previous_rows = []
    for row, ending in zip(rows, endings, strict=True):
        when = stepups.ago(row, facts.now).ljust(_WHEN_CELLS)
        blank = " " * (column - cell_width(ending) + 2)
        room = max(width - LABEL - _WHEN_CELLS - column - 2, 8)
        otherwise = pen.clip(stepups.differs(row, facts.row), room)
        previous_rows.append(
            pen.fact(
                "",
                (when, palette.muted),
                (ending + blank, palette.text),
                (otherwise, palette.text),
            )
        )
    return previous_rows


_MANY = 100_000
_DIGEST: Final = 12
"""Digits of a text's digest on one row."""
_SAYS: Final = "agent says (unverified)"
_SAYS_OPERATOR: Final = "reason given with it"
_UNSEEN: Final = "content, query and headers of the request it is used for"
"""The short form of `UNSEEN_PARTS`, on one row."""
_NARROW: Final = 60
"""Cells of a dialog that has no row to spare for it."""


def brief(
    facts: StepUpFacts, pen: Pen, width: int, height: int, *, words_too: bool = True
) -> tuple[list[Row], bool]:
    """Write the request within *height* rows; return if a value was truncated.

    The agent's words are left out without *words_too*.

    Each necessary fact has its row, for any request of an agent: the agent's own words
    give way first, then blank rows, then the second row of a long value.
    """
    row = facts.row
    warning = _warning(row, facts.body, pen, width)
    agent, cut_agent = _agent(facts, pen, width)
    past = listed_before(facts, pen, width)
    wants, cut_wants = _wants(row, pen, width)
    on, cut_on = ([], False) if row.request else _on(row, pen, width)
    grant, cut_grant = _grant(row, pen, width)
    tail = [*grant, *_approvals(row, pen, width), tally_row(facts, pen, width)]
    problem = _problem(row, pen, width)
    fixed = len([*warning, *agent, *wants, *on, *tail, *problem])
    spare = height - fixed - 2
    count = len(row.members) + len(row.others) + len(row.texts)
    why_text = f"{row.rule}: {row.why}"
    more_why = len(pen.facts("", why_text, width, max(height, 1))[0]) - 1
    roomy = words_too and row.reason and max(count, 1) + more_why <= spare - 3
    silent = row.request or row.is_change or not words_too  # it need not say a word
    words_least = 0 if silent else 1
    words_min = 3 if roomy else words_least
    body_min = 3 if row.request else 0
    most_with = max(spare - words_min - body_min, 1)
    with_rows, cut_with = _with(row, pen, width, most_with)
    spare -= len(with_rows)
    body, cut_body = _body(facts.body, pen, width, max(spare, 1))
    spare -= len(body)
    most_why = max(2 + spare - words_least, 1)  # the blank row gives way too
    why, cut_why = pen.facts("Why ask", why_text, width, most_why)
    if row.is_change:  # its row is the one of what changes
        why, cut_why = [], False
    spare -= len(why) - 1
    past = past[: max(spare - words_min, 0)]
    rows = [
        *warning,
        *agent,
        *wants,
        *on,
        *with_rows,
        *body,
        *why,
        *tail,
        *past,
        *problem,
    ]
    left = height - len(rows)
    words: list[Row] = []
    if words_too and (row.reason or not silent):
        words = _words(row, pen, width, max(left - 1, min(left, 1)))
    if left > len(words) and (words or not row.is_change):
        rows.append(EMPTY)
    truncated = cut_agent or cut_wants or cut_on or cut_with or cut_body or cut_why
    truncated = truncated or bool(row.texts)  # the full view alone has their lines
    return [*rows, *words][:height], truncated or cut_grant or len(rows) > height


def _grant(row: StepUpRow, pen: Pen, width: int) -> tuple[list[Row], bool]:
    """Write the grant of an approval, and the part of it that is not visible here."""
    rows, truncated = pen.facts("You grant", granted(row), width, 3, pen.palette.text)
    # Without a row to spare, approving waits until the full view has shown it.
    narrow = row.token_alone and width < _NARROW
    if row.token_alone and not narrow:
        unseen = pen.clip(_UNSEEN, width - LABEL)
        rows.append(pen.fact("Not shown", (unseen, pen.palette.waiting)))
    return rows, truncated or narrow


def whole(stepup_facts: StepUpFacts, pen: Pen, width: int) -> tuple[list[Row], int]:
    """Write everything there is; also say how many of the rows are trusted facts.

    Earlier decisions come after them: they inform, and are not part of the grant.
    """
    row = replace(stepup_facts.row, device=None)  # not part of it, and not hashable
    facts, words = _whole(row, stepup_facts.owner, stepup_facts.body, pen, width)
    facts = (*facts, *line_rows(stepup_facts.lines, pen, width))
    past = [
        tally_row(stepup_facts, pen, width),
        *listed_before(stepup_facts, pen, width),
    ]
    return [*facts, *past, *words], len(facts)


@lru_cache(maxsize=2)
def _whole(
    row: StepUpRow, owner: str, body: BodyView | None, pen: Pen, width: int
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    request = row.request
    facts: list[tuple[str, str]] = [
        *_asker(row, owner),
        *([("Wants to", f"{request.method} {request.url}")] if request else []),
        ("Is" if request or row.is_change else "Wants to", row.action),
        *([] if row.is_change else [("  scope", row.scope)]),
        ("  risk", row.risk.upper()),
        ("On", row.resource or "nothing named"),
        *(_parameter_facts(row)),
        *(request_facts(row, body, width)),
        ("Rule", row.rule),
        *([] if row.is_change else [("Why ask", row.why)]),
        *_own_words("You grant", f"in your name: {granted(row, this='')}", width),
        *(_own_words("Not shown", UNSEEN_PARTS, width) if row.token_alone else []),
        *([("Approvals", row.approvers)] if row.approvers else []),
        ("Asked", f"{row.requested_at:%Y-%m-%d} {clock_time(row.requested_at)}"),
        ("Expires", f"{row.expires_at:%Y-%m-%d} {clock_time(row.expires_at)}"),
        ("Change" if row.is_change else "Step-up", row.id),
        ("Digest", row.digest),
        ("Fingerprint", row.fingerprint),
        ("Status", _status(row)),
        *([("Last try", row.problem)] if row.problem and row.open else []),
        *([(answered(row), row.denial)] if row.denial else []),
    ]
    rows: list[Row] = _warning(row, body, pen, width)
    for label, value in facts:
        rows += _in_full(label, value, pen, width)
    trusted = tuple(rows)
    raw = _raw(body, pen, width) if request else ()
    if (request or row.is_change) and not row.reason:
        return trusted, raw
    text, masked = pen.masked(row.reason)
    says = _SAYS_OPERATOR if row.is_change else _SAYS
    rows = [EMPTY, ((f"The {says}", pen.palette.muted),)]
    rows += [
        ((line, pen.palette.unverified),) for line in wrap(text or "nothing", width)
    ]
    if masked:
        rows.append(((masked, pen.palette.waiting),))
    return trusted, (*raw, *rows)


def _asker(row: StepUpRow, owner: str) -> list[tuple[str, str]]:
    """Name the requesting agent, or the operator, with the request."""
    if row.is_change:
        return [("Operator", row.agent_name), ("Change", row.why)]
    return [
        ("Agent", row.agent_name),
        ("  id", row.agent_id),
        ("  owner", owner or "not known here"),
    ]


def _status(row: StepUpRow) -> str:
    """Say whether it waits, or how it ended, by whom and by which factors."""
    proof = f" ({row.factors})" if row.factors else ""
    return row.state if row.open else f"{ended(row)}{proof}"


def _warning(row: StepUpRow, body: BodyView | None, pen: Pen, width: int) -> list[Row]:
    lines = [str(unreadable(row.request, pen))] if row.request else []
    if body is not None and body.lost:
        lines.append(body.problem)
    lines.append(no_limits(row))
    if row.repeat is not None and row.open:
        lines.append(f"NOT ONCE: this also approves {row.repeat.words}.")
    return [
        line
        for one in filter(None, lines)
        for line in pen.paragraph(one, width, pen.palette.danger)
    ]


def unreadable(request: HeldRequest, pen: Pen) -> Shown:
    """Word that a body cannot be read, and its known facts; empty if it can be."""
    warning = request.described.warning
    return visible(warning, 10 * len(warning), ascii_only=pen.glyphs.ascii_only)


def _agent(facts: StepUpFacts, pen: Pen, width: int) -> tuple[list[Row], bool]:
    """Write the agent, its id whole: a name proves nothing (T-03)."""
    row, palette = facts.row, pen.palette
    if row.is_change:
        return pen.facts("Operator", row.agent_name, width, 1, palette.strong)
    dot = f" {pen.glyphs.separator} "
    room = width - LABEL - cell_width(row.agent_id) - len(dot)
    owner_room = min(cell_width(facts.owner), max(room // 3, 8)) + len(dot)
    name = pen.clip(row.agent_name, max(room - owner_room * bool(facts.owner), 8))
    cut_owner = False
    pieces: list[Piece] = [(name, palette.strong), (dot + row.agent_id, palette.text)]
    if facts.owner:
        owner_room = room - cell_width(name) - len(dot)
        pieces.append((dot + pen.clip(facts.owner, owner_room), palette.muted))
        cut_owner = pen.clip(facts.owner, owner_room) != facts.owner
    return [pen.fact("Agent", *pieces)], name != row.agent_name or cut_owner


def _wants(row: StepUpRow, pen: Pen, width: int) -> tuple[list[Row], bool]:
    risk = pen.palette.risk(row.risk)
    mark = ((f"{pen.glyphs.risk(row.risk)} risk {row.risk.upper()}", risk),)
    room = width - LABEL - 2 - cell_width(mark[0][0])
    rows: list[Row] = []
    label, whole_action, truncated = "Wants to", str(row.action), False
    if row.request:
        text = f"{row.request.method} {row.request.url}"
        rows, truncated = pen.facts(label, text, width, 2, pen.palette.strong)
        label, on = "Is", f" on {row.resource}" if row.resource else ""
        whole_action = f"{row.action}{on}"
    elif row.is_change:
        rows, truncated = pen.facts("Change", row.why, width, 3, pen.palette.strong)
        label = "Is"
    action = pen.clip(whole_action, room)
    left = pen.fact(label, (action, pen.palette.strong))
    rows.append(pen.spread(left, mark, width))
    truncated = truncated or action != whole_action
    if row.scope != row.action:
        scope, cut_scope = pen.facts("with scope", row.scope, width, 1)
        rows += scope
        truncated = truncated or cut_scope
    return rows, truncated


def _on(row: StepUpRow, pen: Pen, width: int) -> tuple[list[Row], bool]:
    if not row.resource:
        return [pen.fact("On", ("nothing named", pen.palette.muted))], False
    return pen.facts("On", row.resource, width, 1, pen.palette.strong)


def _with(row: StepUpRow, pen: Pen, width: int, most: int) -> tuple[list[Row], bool]:
    """Write one parameter a row, so that no value can pass for another parameter.

    Members of other details follow, under a label of their own.
    """
    texts = [(text.name, _short(text, pen)) for text in row.texts]
    members = (*row.members, *row.others, *texts)
    label = "Policy read" if row.request else "With"
    if not members and row.is_change:
        return [], False
    if not members:
        return [pen.fact(label, ("no parameters", pen.palette.muted))], False
    shown = members
    missing = 0
    if len(shown) > most:
        shown = shown[: max(most - 1, 0)]
        missing = len(members) - len(shown)
    column = max((cell_width(pen.clip(n, 16)) for n, _ in shown), default=0)
    rows: list[Row] = []
    truncated = missing > 0
    named = len(row.members) + len(row.others)
    labels = {0: label, len(row.members): "Also", named: "Text"}
    for number, (raw_name, raw_value) in enumerate(shown):
        name = pen.clip(raw_name, column)
        room = width - LABEL - column - 2
        value = pen.clip(raw_value, room)
        truncated = truncated or value != raw_value or name != raw_name
        blank = " " * (column - cell_width(name) + 2)
        rows.append(
            pen.fact(
                labels.get(number, ""),
                (name + blank, pen.palette.muted),
                (value, pen.palette.strong),
            )
        )
    if missing:
        kind = "member" if row.others else "parameter"
        more = f"{plural(missing, kind)} {'more' if shown else 'to view'}"
        rows.append(pen.fact("" if rows else label, (more, pen.palette.waiting)))
    return rows, truncated


def _short(text: TextRow, pen: Pen) -> str:
    """Write the beginnings of both digests: the full view has them whole."""
    before, after = text.before[:_DIGEST], text.after[:_DIGEST]
    arrow = pen.own("→")
    return f"{before or 'none'} {arrow} {after or 'removed or secret'}  SHA-256"


def _body(
    body: BodyView | None, pen: Pen, width: int, most: int
) -> tuple[list[Row], bool]:
    """Write a body's kind, and as many of its members or lines as fit."""
    if body is None:
        return [], False
    palette, room = pen.palette, width - LABEL
    rows = [pen.fact("Body", (pen.clip(body.summary, room), palette.text))]
    if body.lost:
        return rows, False
    if body.problem and not body.members:
        problem_rows = pen.paragraph(body.problem, room, palette.waiting)
        return [*rows, *(pen.fact("", *row) for row in problem_rows)][
            : max(most, 2)
        ], True
    lines = [f"{name} = {value}" for name, value in body.members]
    fit = max(most - 1, 0)
    if len(lines) > fit:
        lines = _packed(lines, pen.glyphs.separator, room)
    shown = lines if len(lines) <= fit else lines[: max(fit - 1, 0)]
    truncated = len(shown) < len(lines) or bool(body.problem)
    for line in shown:
        text = pen.clip(line, room)
        truncated = truncated or text != line
        rows.append(pen.fact("", (text, palette.strong)))
    if left := len(lines) - len(shown):
        packed = len(lines) < len(body.members)
        more = plural(left, "row" if packed else "member")
        said_more = f"{more} {'more' if shown else 'to view'}"
        if fit:
            rows.append(pen.fact("", (said_more, palette.waiting)))
        else:
            rows = [pen.fact("Body", (pen.clip(body.summary, room), palette.waiting))]
    return rows, truncated


def _packed(lines: list[str], separator: str, room: int) -> list[str]:
    """Join members on rows; one that has the separator keeps a row of its own.

    No value can then pass for another member.
    """
    rows: list[str] = []
    alone = True
    for line in lines:
        joined = f"{rows[-1]} {separator} {line}" if rows else line
        own = separator in line
        if not (alone or own) and cell_width(joined) <= room:
            rows[-1] = joined
        else:
            rows.append(line)
            alone = own
    return rows


def request_facts(
    row: StepUpRow, body: BodyView | None, width: int
) -> Iterator[tuple[str, str]]:
    """Give the rest of a held call: each header, and each member of its body.

    A name that could pass for a name with its value is quoted.
    """
    if row.request is None or body is None:
        return
    for name, value in row.request.headers.items():
        yield "Header", f"{name}: {value}"
    yield "Body", body.summary
    yield from _own_words("  but", body.problem, width)
    for name, value in body.members:
        yield "", f"{name} = {value}"
    held_body = row.request.described
    named = (("type", held_body.media_type), ("encoding", held_body.encoding))
    for label, text in (*named, ("SHA-256", held_body.sha256)):
        if text:
            yield f"  {label}", visible(text)


def _own_words(label: str, text: str, width: int) -> list[tuple[str, str]]:
    """Break a sentence of ours at blanks; other texts break anywhere."""
    lines = [line for line in wrap(text, max(width - LABEL, 8)) if line]
    return [("" if number else label, line) for number, line in enumerate(lines)]


def _raw(body: BodyView | None, pen: Pen, width: int) -> tuple[Row, ...]:
    """Write the bytes that will be sent, which the digest covers."""
    if body is None or not body.raw:
        return ()
    heading = "The bytes of the body, as they are sent and as the digest covers them"
    rows: list[Row] = [EMPTY, *pen.paragraph(heading, width, pen.palette.muted)]
    for line in body.raw:
        lines = visible_lines(line, max(width, 8), _MANY)
        rows += [((text, pen.palette.text),) for text in lines]
    return tuple(rows)


def _approvals(row: StepUpRow, pen: Pen, width: int) -> list[Row]:
    """Say who has approved and who may still, where several people have to."""
    if not row.approvers:
        return []
    return pen.facts("Approvals", row.approvers, width, 2, pen.palette.waiting)[0]


def _problem(row: StepUpRow, pen: Pen, width: int) -> list[Row]:
    if not row.problem:
        return []
    text = f"{row.problem}. Approve again for a new code."
    return pen.facts("Last try", text, width, 2, pen.palette.waiting)[0]


def _words(row: StepUpRow, pen: Pen, width: int, most: int) -> list[Row]:
    """Draw the agent's own words in a box that states their worth."""
    palette = pen.palette
    if not row.reason:
        return [pen.fact("It says", ("nothing", palette.muted))][:most]
    text, masked = pen.masked(row.reason)
    if most < 3:
        one = pen.clip(f"unverified: {text}", width - LABEL)
        return [pen.fact("It says", (one, palette.unverified))][:most]
    box = pen.glyphs.box
    inner = width - 4
    lines = wrap(pen.clip(text, inner * most), inner)
    more = ""
    if len(lines) > most - 2 or len(text) > inner * most:
        lines_left = lines[: most - 3]
        lines = [*lines_left, pen.clip(" ".join(lines[most - 3 :]), inner)]
        left = len(text) - sum(len(line) for line in lines)
        more = plural(max(left, 1), "character") + " more"
    head = f" the {_SAYS_OPERATOR if row.is_change else _SAYS} "
    foot = pen.own(" · ".join(part for part in (masked, more) if part))
    foot = f" {foot} " if foot else ""
    side = (box.vertical, palette.line)
    rows: list[Row] = [
        (
            (box.top_left, palette.line),
            (head, palette.muted),
            (pen.glyphs.rule(width - 2 - len(head)) + box.top_right, palette.line),
        )
    ]
    for line in lines:
        blank = " " * (inner - cell_width(line))
        rows.append((side, (f" {line}{blank} ", palette.unverified), side))
    rows.append(
        (
            (
                box.bottom_left + pen.glyphs.rule(width - 3 - cell_width(foot)),
                palette.line,
            ),
            (foot, palette.waiting),
            (box.horizontal + box.bottom_right, palette.line),
        )
    )
    return rows


def _parameter_facts(row: StepUpRow) -> Iterator[tuple[str, str]]:
    """Give name and value rows of their own: neither can pass for the other."""
    label = "Policy read" if row.request else "With"
    if not row.members and not row.is_change:
        yield label, "no parameters"
    for name, value in row.members:
        yield label, name
        yield "  is", value
    for name, value in row.others:
        yield "Also", name
        yield "  is", value
    for text in row.texts:
        yield "Text", text.name
        yield "  SHA-256", text.before or "none before"
        yield "  becomes", text.after or "removed, or secret"


def _in_full(label: str, value: str, pen: Pen, width: int) -> list[Row]:
    """Write a value without any re-flow, so that it is read exactly as it is."""
    lines = visible_lines(value, max(width - LABEL, 8), _MANY)
    return [
        pen.fact(label if number == 0 else "", (line, pen.palette.text))
        for number, line in enumerate(lines)
    ]
