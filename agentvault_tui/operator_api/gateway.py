"""The operators' wire about calls through the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, UnsetType, field

from agentvault_tui.operator_api.history import ActorInfo
from agentvault_tui.operator_api.planning import ExplainInfo
from agentvault_tui.operator_api.shapes import (
    Json,
    MemberInfo,
    Moment,
    Text,
    Time,
    WireShape,
)
from agentvault_tui.operator_api.stepups import MoneyInfo


class CallInfo(WireShape[Text, Time], kw_only=True):
    """A call through the gateway."""

    id: Annotated[Text, 80]
    agent_id: Annotated[Text, 80]
    agent_name: Annotated[Text, 80]
    service: Annotated[Text, 80]
    route: Text
    method: Annotated[Text, 80]
    path: Annotated[Text, 400]
    state: Annotated[Text, 80]
    """``held``, ``sending``, ``streaming`` or ``ended``."""
    started_at: Time
    bytes_in: int
    """Of the body that was received from the service."""
    bytes_out: int
    request_whole: bool | None = None
    """Whether the service may have the whole request; null if it cannot be known."""
    cut_by: ActorInfo | None = None
    """Who cancelled the call, or revoked its agent."""
    status: int | None
    ended: str | None
    """``done``, ``failed`` or ``cut``."""
    decision_id: Annotated[Text, 80] | None
    stepup_id: Annotated[Text, 80] | None
    broker: Annotated[Text, 80] | None = None
    """Through which broker of a team it goes; null where there is one."""

    @property
    def held(self) -> bool:
        """Whether it waits for a person."""
        return self.state == "held"

    @property
    def request(self) -> str:
        """The method and the path."""
        return f"{self.method} {self.path}"


class CallList(WireShape, kw_only=True):
    """Calls in flight and held, oldest first; those of all brokers of a team."""

    calls: tuple[CallInfo, ...]
    stale: bool | UnsetType = UNSET
    """True where a team's store is away: then these are this broker's alone."""


def broker_names(brokers: Sequence[MemberInfo[Any, Any]]) -> dict[str, str]:
    """Return distinct names of brokers, by id: hosts, or ids if these are alike."""
    hosts = [one.host for one in brokers]
    alike = len(set(hosts)) < len(hosts)
    names = {one.id: one.id if alike else one.host for one in brokers}
    return names if len(names) > 1 else {}


class HeldBody(WireShape, kw_only=True):
    """The body of a held call, while it is in memory."""

    sha256: str | None
    bytes: int | None
    base64: str | None
    """All of it; null once it is in memory no more: decided, or after a restart."""
    documents: tuple[str | None, ...] = ()
    """Those that the call names, likewise."""


class RouteInfo(WireShape, kw_only=True):
    """A route of a service: which requests are which action."""

    method: str
    path: str
    scope: str
    resource: str | None
    parameters: dict[str, str]
    """Where each is read; several places that add up have ``+`` between them."""
    unit: Literal["minor", "major"] | None = None
    """Of its amounts, if the service's file states it."""
    when: str = ""
    """Of a case of the route: which requests; empty for all others."""
    also: tuple[str, ...] = ()
    """Further resources that its requests act on."""


class ServiceCredentialInfo(WireShape[Text, Time], kw_only=True):
    """The credential of a service's requests, by name and never by value."""

    kind: Annotated[Text, 20]
    secret: str | None
    connection: str | None


class UnlistedInfo(WireShape, kw_only=True):
    """A header or media type of requests that a service's file does not list."""

    kind: str
    """``header`` or ``type``."""
    name: str
    calls: int
    refused: bool
    """Whether the request was refused; a header may be dropped instead."""
    add: str | None
    """The line that would allow it."""


class ServiceInfo(WireShape[Text, Time], kw_only=True):
    """An upstream API that agents reach through the gateway."""

    name: Annotated[Text, 80]
    origin: Text
    unmatched: str
    allow_private: bool
    credential: ServiceCredentialInfo[Text, Time]
    routes: tuple[RouteInfo, ...]
    health: Annotated[Text, 20]
    """``ok``, ``unused`` since the start, ``failing``, or ``broken``: its secret is
    missing or its present file is not in effect."""
    problem: Annotated[Text, 400] | None
    last_used_at: Time | None
    unlisted: tuple[UnlistedInfo, ...] = ()
    """Of the last day; only if one service is asked for."""


class ServiceList(WireShape[Text, Time], kw_only=True):
    """The services in effect, by name."""

    services: tuple[ServiceInfo[Text, Time], ...]
    problems: dict[Annotated[Text, 80], Annotated[Text, 400]]
    """The problems of files in ``services/`` that are not in effect, by name."""


class ProbeInfo(WireShape, kw_only=True):
    """One request of a probe; its body was a request itself."""

    method: str
    status: int | None
    """HTTP status of its answer, if there was one."""
    outcome: str
    """``unread``: the service answered the body as another request; ``closed``: it
    closed the connection; ``nothing_shown``; or the code of an error."""


class ServiceProbe(WireShape, kw_only=True):
    """The results of a probe of one service."""

    name: str
    origin: str
    leaves_unread: bool | None
    """True if a request showed that it leaves bodies unread; else None, which proves
    nothing."""
    probes: tuple[ProbeInfo, ...]


class TryInfo(WireShape, kw_only=True):
    """The action of a request, and policy's answer; nothing is sent."""

    route: RouteInfo | None
    """None where the request is not of one: it is the unmatched scope's, or refused."""
    error: str | None
    """The code that the gateway answers with before policy is asked, such as
    ``bad_path``; the members below are then empty."""
    description: str = ""
    scope: str = ""
    resource: str = ""
    """Several have a comma and a blank between them."""
    parameters: Json = field(default_factory=dict)
    money: MoneyInfo | None = None
    decision: ExplainInfo | None = None


class SecretUserInfo(WireShape, kw_only=True):
    """One service or destination that names a secret."""

    kind: Literal["service", "mcp", "sink", "hook"]
    """``sink``: of ``alerts.toml``; ``hook``: a decision webhook of ``limits.toml``."""
    name: str
    origins: tuple[str, ...]
    """Where it is sent."""
    is_url: bool
    """Whether the secret is itself the URL that is posted to."""
    refused: bool
    """Whether it is not sent: an origin is not among those of the secret."""


class SecretInfo(WireShape, kw_only=True):
    """A sealed secret, without its value."""

    name: str
    created_at: Moment
    changed_at: Moment
    changed_by: str
    for_: tuple[str, ...] = field(name="for")
    """Where it may be sent: origins, or ``none`` alone."""
    used_by: tuple[str, ...]
    """The names of `users`."""
    users: tuple[SecretUserInfo, ...]
    """The services and destinations that name it."""


class MissingSecretInfo(WireShape, kw_only=True):
    """A secret that a file names and that is not set."""

    name: str
    users: tuple[SecretUserInfo, ...]


class SecretList(WireShape, kw_only=True):
    """The sealed secrets, by name."""

    secrets: tuple[SecretInfo, ...]
    missing: tuple[MissingSecretInfo, ...]
    """Those that files name and that are not set."""
    key: str
    """The owner of the key that wraps them: ``home`` or ``systemd``; empty if there is
    none."""
