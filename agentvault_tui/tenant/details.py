"""Read the approval's content from a device request (RFC 9396), strictly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from msgspec import Meta, Struct, ValidationError, convert, to_builtins
from msgspec.json import encode

from agentvault_tui import strict_json
from agentvault_tui.amounts import render_amount
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.held_body import PAGE, Described
from agentvault_tui.model import (
    Money,
    Risk,
    detail_members,
    limits_nothing,
    repeat_words,
)
from agentvault_tui.model.waiting import BOUNDED
from agentvault_tui.text import visible

TYPE: Final = "agentvault:stepup"
_TEXT_CAP: Final = 4000
_URL_CAP: Final = 65_536
_DEPTH: Final = 6
_MEMBERS: Final = 64
_Text = Annotated[str, Meta(min_length=1, max_length=_TEXT_CAP)]
_Objects = tuple[dict[str, object], ...]


class BoundRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP request of a held call; the fingerprint's digest covers all of it."""

    method: _Text
    url: Annotated[str, Meta(min_length=1, max_length=_URL_CAP)]
    body_kind: Literal["none", "json", "form", "multipart", "opaque"] | None = None
    body_type: _Text | None = None
    """The media type as it is sent."""
    body_encoding: _Text | None = None
    body_bytes: Annotated[int, Meta(ge=0)]
    body_sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]

    def rows(self) -> list[tuple[str, object]]:
        """Return its members, one a row."""
        rows = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [(name, value) for name, value in rows if value is not None]

    @property
    def warning(self) -> str:
        """The warning that comes first; empty without one."""
        return Described.of(to_builtins(self)).warning


class PageBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A held call's body as an approval page shows it; see `held_body.BodyText`."""

    summary: _Text
    members: Annotated[
        tuple[tuple[str, str], ...], Meta(max_length=2 * PAGE.members)
    ] = ()
    """A file has two: its description, and its SHA-256."""
    left: Annotated[int, Meta(ge=0)] = 0
    cut: Annotated[int, Meta(ge=0)] = 0
    warning: str = ""
    too_large: bool = False
    """Whether it has members, and none is listed here."""
    lost: bool = False
    """Whether it can only be denied."""


class PageText(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The lines that differ in a text that a change replaces."""

    name: str
    lines: tuple[str, ...] = ()
    left: Annotated[int, Meta(ge=0)] = 0
    """Lines that are not among them."""


class PageTexts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The texts that a change replaces; see `broker.shown_texts`."""

    texts: tuple[PageText, ...] = ()
    more: Annotated[int, Meta(ge=0)] = 0
    """Texts that are not among them."""


class PageDetails(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content and checks of an approval page next to the action."""

    id: Annotated[str, Meta(pattern=r"\A(sup|chg)_[0-9a-z]{8,64}\Z")]
    digest: Annotated[str, Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
    """Over all a person decides about: the challenge that a passkey signs."""
    expires_in: Annotated[int, Meta(ge=1, le=86_400)] | None = None
    """Seconds, of a code for the page alone that cannot be typed."""
    ends: datetime | None = None
    """When the request ends; a code that a person began ends before."""
    owner: str = ""
    rule: str = ""
    count: int = 1
    before: str = ""
    """How the last ones like it were decided."""
    reason: str | None = None
    """The agent's own words."""
    problem: str | None = None
    """Why the last try led to no decision."""
    body: PageBody | None = None
    """Of a held call; None if the broker cannot show it."""
    need: Annotated[int, Meta(ge=1)] = 1
    """How many different people have to approve."""
    by: tuple[tuple[str, str], ...] = ()
    """Subject and name of those who have."""
    only_by: tuple[tuple[str, ...], ...] = ()
    """Lists of subjects, addresses and ``group:`` names; only who is in each may."""
    not_by: tuple[str, ...] = ()
    """Case-folded subjects, names and addresses of those who may not."""


class _Most(Struct, frozen=True, forbid_unknown_fields=True):
    max: Annotated[int, Meta(ge=0, lt=2**53)]


class AskedRepeat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often more the same is approved; the fingerprint's digest covers it."""

    count: Annotated[int, Meta(ge=1, le=20)]
    within: Annotated[int, Meta(ge=1, le=3600)]
    bounds: dict[Literal["amount", "count", "recipients"], _Most]

    @classmethod
    def chosen(cls, form: Mapping[str, str]) -> Self | None:
        """Read a person's choice on the approval page; None: only the request.

        Raises:
            TenantRefusedError: ``bad_request``: a number is none, or out of bounds.
        """
        if not form.get("count"):
            return None
        names = (name for name in BOUNDED if form.get(f"max-{name}"))
        try:
            most = {name: {"max": int(form[f"max-{name}"])} for name in names}
            within = 60 * int(form.get("minutes", ""))
            chosen = {"count": int(form["count"]), "within": within, "bounds": most}
            return convert(chosen, cls)
        except ValueError:  # ValidationError is one
            raise TenantRefusedError(
                "bad_request",
                "Choose 1 to 20 more, 1 to 60 minutes, and whole numbers as limits.",
            ) from None

    def words(self) -> str:
        """Word the additions that are approved next to the request itself."""
        bounds = {str(name): one.max for name, one in self.bounds.items()}
        return repeat_words(self.count, self.within, bounds)


class StepUpDetails(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=TYPE
):
    """One exact action, as the client described it; every text in it is untrusted."""

    agent_id: _Text
    agent_name: _Text
    action: _Text
    scope: _Text
    resource: _Text | None = None
    parameters: dict[str, object]
    money: Money | None = None
    """How the amount is written, if the service of the request says so."""
    risk: Risk
    why: _Text
    fingerprint: Annotated[str, Meta(pattern=r"\A[0-9A-F]{4}\Z")]
    requested_at: Annotated[datetime, Meta(tz=True)]
    requested_on: _Text
    connection: _Text | None = None
    """Of the provider whose own token is issued, if it is one."""
    ttl: Annotated[int, Meta(ge=1)] = 300
    """Seconds the token lives once it is fetched."""
    resource_indicator: _Text | None = None
    """RFC 8707, which the token will say next to the resource."""
    other_details: _Objects = ()
    """RFC 9396 objects of other types, which the token will say as they are."""
    repeat: AskedRepeat | None = None
    request: BoundRequest | None = None
    """Of a held call, which goes through once where a token would be issued else."""

    change: _Text | None = None
    """Where an operator changes something and no agent asks: the call that does it."""
    evaluation: bool = False
    """Whether the same question is answered with yes, and no token is issued."""
    texts: PageTexts = PageTexts()
    """Of a change."""
    page: PageDetails | None = None
    """Where the tenant has approval pages."""

    @property
    def unlimited(self) -> bool:
        """Check whether only the scope limits the use of the token."""
        bound = self.request is not None or self.change is not None
        return not bound and limits_nothing(
            self.resource, self.parameters, self.other_details, self.connection
        )

    @property
    def token_alone(self) -> bool:
        """Check whether a token of ours is approved, and not one request."""
        bound = self.request or self.evaluation or self.change
        return not (bound or self.connection)

    @property
    def may_differ(self) -> list[str] | None:
        """Return the parameters a repeat may bound; None where there can be none."""
        if self.connection is not None or self.change is not None:
            return None
        # Policy reads some of a held call; its body says more to the service.
        named = () if self.request is not None else BOUNDED
        return [name for name in named if name in self.parameters]

    @property
    def amount(self) -> str:
        """Return the amount in words; empty if the request states none."""
        if self.change is not None:
            return ""
        return render_amount(self.parameters, self.money)

    def others(self) -> list[tuple[str, object]]:
        """Return the other facts for a resource server, one row a member."""
        rows = detail_members(self.other_details)
        if self.resource_indicator not in {None, self.resource}:
            rows.append(("resource indicator", self.resource_indicator))
        return rows

    def to_json(self) -> str:
        """Write it for the store; `read` takes it back."""
        return encode([self]).decode()


def read(text: str) -> StepUpDetails:
    """Read ``authorization_details``: exactly one object of our type.

    RFC 9396 section 5: unknown types and wrong members are refused, not dropped, for a
    person decides by them.

    Raises:
        TenantRefusedError: ``invalid_authorization_details``.
    """
    try:
        parsed = strict_json.loads(text)
    except ValueError:
        raise _refuse("it is not JSON, or a name stands twice in it") from None
    if (
        not isinstance(parsed, list)
        or len(parsed) != 1
        or not isinstance(parsed[0], dict)
    ):
        raise _refuse("it must be an array of one object")
    member: dict[str, object] = parsed[0]
    if member.get("type") != TYPE:
        raise _refuse(f"its type must be {TYPE}")
    usual: dict[str, object] = {"parameters": {}, "other_details": []}
    for name, value in usual.items():
        member[name] = value if member.get(name) is None else member[name]
    member.setdefault("scope", member.get("action"))
    try:
        details = convert(member, StepUpDetails)
    except ValidationError as error:
        raise _refuse(visible(str(error), 200)) from None
    for one in (details.parameters, *details.other_details):
        _bounded(one, 1)
    return details


def member_rows(members: Iterable[tuple[str, object]]) -> list[tuple[str, str, str]]:
    """Return names, values and kinds: ``text`` as it is, the rest as ``json``."""
    return [
        (name, value, "text")
        if isinstance(value, str)
        else (name, json.dumps(value, ensure_ascii=False), "json")
        for name, value in members
    ]


def _refuse(why: str) -> TenantRefusedError:
    return TenantRefusedError(
        "invalid_authorization_details", f"authorization_details: {why}"
    )


def _bounded(value: object, depth: int) -> None:
    """Apply the caps that the broker applies to agents' requests."""
    if isinstance(value, str) and len(value) > _TEXT_CAP:
        raise _refuse(f"a text in parameters is over {_TEXT_CAP} characters")
    if isinstance(value, dict | list):
        # A list may be long: sends to many are just what a person is asked about.
        if depth > _DEPTH or (isinstance(value, dict) and len(value) > _MEMBERS):
            raise _refuse(f"parameters are over {_DEPTH} levels or {_MEMBERS} members")
        if isinstance(value, dict):
            for name in value:
                _bounded(name, depth)
        for item in value.values() if isinstance(value, dict) else value:
            _bounded(item, depth + 1)
