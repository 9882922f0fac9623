"""The operators' wire for agent hosts and for tokens that agents passed on."""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta, field

from agentvault_tui.operator_api.requests import WireRequest, Word
from agentvault_tui.operator_api.shapes import (
    AgentRef,
    Json,
    Maybe,
    Text,
    Time,
    WireShape,
)
from agentvault_tui.operator_api.stepups import DeviceInfo


class IssueRequest(WireRequest, kw_only=True):
    """Issue a token of an agent to the caller at the socket."""

    agent_id: Word
    scope: Annotated[str, Meta(max_length=4000)] = ""
    """Empty: every scope that policy allows the agent at once."""
    resource: Annotated[str, Meta(max_length=4000)] = ""


IN_PROJECT: Final = "project"
"""The value of `HookPlace.where` inside the project's folder."""


class HookPlace(NamedTuple):
    """The path that a text in a call's arguments resolves to."""

    argument: str
    """Empty for the folder that the call starts from."""
    stated: str
    pattern: bool
    """Whether it was read as a glob."""
    resolved: str
    """Absolute, with links followed."""
    where: str
    """``project``, ``outside``, ``vault`` (AgentVault's home directory) or
    ``unknown``."""
    configures: bool
    """Whether a change there makes a host, git, an editor or a shell run programs."""
    folder: bool


class HookWord(NamedTuple):
    """The path that a word of a command resolves to."""

    word: int
    """Its index."""
    resolved: str
    where: str
    """As `HookPlace.where`."""
    folder: bool


class HookCommand(WireRequest, kw_only=True):
    """One simple command of a command line."""

    words: tuple[str, ...]
    """The program and its arguments, after quote removal."""
    cwd: str
    """Where it would run."""
    local: bool = True
    """Whether the program is one of the project's own files, or is named by them."""
    configured: bool = True
    """Whether the repository there makes git run programs, or cannot be read."""
    places: tuple[HookWord, ...] = ()
    repository: str = ""
    """The top folder of git's repository there; empty if it is unknown."""


class ConnectedInfo(WireShape, kw_only=True):
    """An agent host was configured for the local user."""

    factor: bool
    """Whether a loosening needs an approver's factor at the socket now."""


class HookRequest(WireRequest, kw_only=True):
    """A tool call that an agent's host is about to make."""

    agent: Word
    """Its id, or its unique name."""
    tool: Annotated[str, Meta(min_length=1, max_length=400)]
    arguments: Json = field(default_factory=dict)
    omitted: tuple[str, ...] = ()
    """Arguments that are too long to be sent whole: `arguments` has the beginning and
    the SHA-256 of each."""
    arguments_sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""
    """Of all arguments as JSON in ASCII, keys sorted and without space; where some are
    cut."""
    places: tuple[HookPlace, ...] = ()
    """Where the arguments lead; the place of any other argument is unknown."""
    commands: tuple[HookCommand, ...] | None = None
    """The commands of the line, if it consists of simple commands only."""
    reaches_vault: Annotated[str, Meta(max_length=1000)] = ""
    """The part of the call that leads into AgentVault's home directory, if any."""
    cwd: Annotated[str, Meta(max_length=4000)] = ""
    reason: Annotated[str, Meta(max_length=500)] = ""
    """The model's description of its call; not part of the approval."""
    mcp_server: Annotated[str, Meta(max_length=400)] = ""
    """The MCP server of the tool, by the host's name for it, or by its URL; empty if
    the host does not name it."""
    mcp_tool: Annotated[str, Meta(max_length=400)] = ""
    """The tool by the name it has at that server."""
    wait: bool = False
    """Whether to wait for a person, for as long as `gateway.hook_wait` says."""


class RunRequest(WireRequest, kw_only=True):
    """Run a command as an agent."""

    agent_id: Word
    services: tuple[Word, ...] = ()
    """Those it may reach through the proxy; none for all."""
    pass_through: tuple[Word, ...] = ()
    """Hosts it may reach besides those of `gateway.pass_through`."""


class _SecretShape(WireShape, kw_only=True):
    """A shape that holds secrets: it is shown without its members."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class SignInInfo(_SecretShape, kw_only=True):
    """A sign-in from elsewhere that has begun; `ME` tells how it goes on."""

    access_token: str
    """Good for nothing until a person has signed in, and with one key alone."""
    device: DeviceInfo
    origin: str
    """The embedded tenant's data about where it comes from."""


class IssuedTokenInfo(_SecretShape, kw_only=True):
    """A token that was issued to the caller at the socket, shown once."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str
    decision_id: str


class RunInfo(_SecretShape, kw_only=True):
    """A run that has begun; its secrets are shown once."""

    id: str
    key: str
    """The password for the proxy, as long as the run lasts."""
    proxy_url: str
    ca: str
    """PEM of who vouches for services at the proxy."""
    agents_url: str
    services: dict[str, str]
    """Base URL by name."""
    access_token: str
    expires_in: int


class RunNewsInfo(_SecretShape, kw_only=True):
    """The state of a run."""

    ended: str | None
    """Null while it goes on; ``done``, ``lost``, or why it must not go on."""
    why: str
    access_token: str | None
    """A new token, where it got one."""
    expires_in: int | None
    calls: int
    tunnels: int
    held: int
    refused: int


_Path = Annotated[str, Meta(max_length=4096)]
_Sentence = Annotated[str, Meta(max_length=500)]


class ConfinedRequest(WireRequest, kw_only=True):
    """A command of a run is about to begin, confined."""

    layers: tuple[Annotated[str, Meta(max_length=80)], ...]
    """The means of confinement, such as ``bubblewrap 0.12.0``."""
    read: Annotated[tuple[_Path, ...], Meta(max_length=256)] = ()
    write: Annotated[tuple[_Path, ...], Meta(max_length=256)] = ()
    env: Annotated[tuple[Word, ...], Meta(max_length=256)] = ()
    """Names of further variables that it gets."""
    weaker: Annotated[tuple[_Sentence, ...], Meta(max_length=32)] = ()
    """Each promise that does not hold here."""
    seen: Literal["packets", "proxy"]
    """Where attempts to reach something else are seen."""


class AttemptEntry(WireRequest, kw_only=True):
    """Attempts of a confined command to reach one destination, in its own words."""

    kind: Literal["dns", "tcp", "udp", "icmp", "more"]
    """``more`` stands for all destinations beyond those that are named."""
    host: Annotated[str, Meta(max_length=253)] = ""
    address: Annotated[str, Meta(max_length=64)] = ""
    port: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    count: Annotated[int, Meta(ge=1, lt=2**31)]


class AttemptsRequest(WireRequest, kw_only=True):
    """Attempts since the last such request."""

    attempts: Annotated[tuple[AttemptEntry, ...], Meta(min_length=1, max_length=257)]


class RecordedInfo(WireShape, kw_only=True):
    """How many events were recorded."""

    events: int


class HookInfo(WireShape, kw_only=True):
    """How a tool call of an agent's host is decided."""

    outcome: str
    """``allowed``, ``denied`` or ``escalated``."""
    reason: str
    message: str
    decision_id: str | None = None
    auth_req_id: str | None = None
    """The step-up that waits for a person; approved, the same call is allowed once."""


class TreeToken(WireShape[Text, Time, Maybe], kw_only=True):
    """A live token of a delegation tree."""

    id: Annotated[Text, 80]
    parent_id: Annotated[Maybe, 80]
    """The token it was exchanged for; null for the root."""
    depth: int
    """How often it was passed on."""
    agent: AgentRef[Text, Time]
    scope: Annotated[Text, 700_000]
    resource: Annotated[Maybe, 700_000]
    expires_at: Time
    below: int
    """Live tokens that end with it."""


class DelegationTree(WireShape[Text, Time, Maybe], kw_only=True):
    """Live tokens that were passed on, with those they came from."""

    tokens: tuple[TreeToken[Text, Time, Maybe], ...]
    """Each before those exchanged for it; at most a thousand."""
    total: int
    """How many there are."""


class TeamKeyInfo(WireShape, kw_only=True):
    """A key that was made for the team, by the ids that the ledger names."""

    key: str
    before: str | None
    """The earlier one, which opens old ciphertexts until every broker has the new
    one."""
    missing: tuple[str, ...] = ()
    """The brokers that have not the new one yet."""
