"""The operators' routes: method, path, and the types of query, body and answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import quote

from agentvault_tui.operator_api import history, shapes
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.operator_api.shapes import WireShape

AnswerT = TypeVar("AnswerT", bound=WireShape)


@dataclass(frozen=True, slots=True)
class ApiCall(Generic[AnswerT]):
    """One call of the operators' HTTP."""

    method: str
    path: str
    """With each parameter in braces, as OpenAPI and Starlette write it."""
    answer: type[AnswerT]
    summary: str
    query: type[WireShape] | None = None
    body: type[WireShape] | None = None
    status: int = 200
    also: int | None = None
    """Another status of success; the summary says when."""

    def at(self, **parameters: str | int) -> str:
        """Return the path with its parameters filled in, each quoted as one segment."""
        path = self.path.replace(":int", "")
        return path.format_map(
            {name: quote(str(value), safe="") for name, value in parameters.items()}
        )


def _get(
    path: str, answer: type[AnswerT], summary: str, query: type[WireShape] | None = None
) -> ApiCall[AnswerT]:
    return ApiCall("GET", path, answer, summary, query)


def _post(  # noqa: PLR0917 - a table reads best in columns
    path: str,
    body: type[WireShape] | None,
    answer: type[AnswerT],
    summary: str,
    status: int = 200,
    also: int | None = None,
) -> ApiCall[AnswerT]:
    return ApiCall("POST", path, answer, summary, body=body, status=status, also=also)


AGENTS: Final = _get("/api/agents", shapes.AgentPage, "List agents", asks.AgentQuery)
AGENT: Final = _get("/api/agents/{id}", shapes.AgentInfo, "Show an agent")
ACTIVITY: Final = _get(
    "/api/agents/{id}/activity", history.ActivityInfo, "Show what an agent did"
)
REGISTER: Final = _post(
    "/api/agents", asks.AgentRequest, shapes.NewAgentInfo, "Register an agent", 201
)
SCOPES: Final = _post(
    "/api/agents/scopes",
    asks.ScopesRequest,
    shapes.AgentInfo,
    "Give an agent scopes, or take some away",
)
REVOKE: Final = _post(
    "/api/agents/revoke",
    asks.RevokeRequest,
    shapes.RevokeAnswer,
    "Cut an agent off, or all",
)
RESTORE: Final = _post(
    "/api/agents/restore",
    asks.RestoreRequest,
    shapes.RestoreAnswer,
    "Serve an agent again, or lift the panic",
)
STEPUPS: Final = _get(
    "/api/agents/stepup", shapes.StepUpList, "List step-ups", asks.StepUpQuery
)
STEPUP: Final = _get("/api/agents/stepup/{id}", shapes.StepUpInfo, "Show a step-up")
BEFORE: Final = _get(
    "/api/agents/stepup/{id}/before",
    shapes.StepUpList,
    "List how requests like it were decided",
    asks.BeforeQuery,
)
DECIDE: Final = _post(
    "/api/agents/stepup",
    asks.DecisionRequest,
    shapes.StepUpInfo,
    "Begin to approve a step-up (202), or deny it",
    also=202,
)
CONNECTIONS: Final = _get(
    "/api/connections",
    shapes.ConnectionList,
    "List connected accounts",
    asks.ConnectionQuery,
)
CONNECT: Final = _post(
    "/api/connections",
    asks.ConnectRequest,
    shapes.ConnectStepInfo,
    "Begin to connect an account",
    201,
)
CONTINUE: Final = _post(
    "/api/connections/continue",
    asks.ContinueRequest,
    shapes.ConnectStepInfo,
    "Take where the browser ended (201 once the account is connected)",
    also=201,
)
REMOVE: Final = _post(
    "/api/connections/remove",
    asks.RemoveRequest,
    shapes.RemovedInfo,
    "Take an account away",
)
AUDIT: Final = _get(
    "/api/audit", history.EventPageInfo, "Read the ledger", asks.AuditQuery
)
LINKS: Final = _get(
    "/api/audit/links", history.LinkList, "Read links of the chain", asks.LinksQuery
)
EVENT: Final = _get(
    "/api/audit/{seq:int}", history.EventProofInfo, "Show an event with its link"
)
STORY: Final = _get(
    "/api/audit/{seq:int}/story", history.StoryInfo, "List events of one decision"
)
PAST: Final = _get(
    "/api/past", history.PastInfo, "Show what was known at a moment", asks.PastQuery
)
PAST_ACTIVITY: Final = _get(
    "/api/past/activity",
    history.PastActivityInfo,
    "Show what an agent had done by a moment",
    asks.PastActivityQuery,
)
POLICY: Final = _get("/api/policy", shapes.PolicyInfo, "Show policy and catalogue")
EXPLAIN: Final = _post(
    "/api/policy/explain",
    asks.ExplainRequest,
    shapes.ExplainInfo,
    "Explain how policy would answer",
)
RESET_POLICY: Final = _post(
    "/api/policy/reset", None, shapes.PolicyInfo, "Put the shipped policy in force"
)
STATUS: Final = _get("/api/status", shapes.StatusInfo, "Show the broker's status")
PRESENCE: Final = _get("/api/presence", shapes.PresenceInfo, "List who is connected")
LOOK: Final = _post(
    "/api/presence",
    asks.LookRequest,
    shapes.PresenceInfo,
    "Tell which step-up is open",
)
LOGIN: Final = _post(
    "/api/auth/login", None, shapes.MeInfo, "Begin to sign in by device flow", 202
)
LOGOUT: Final = _post("/api/auth/logout", None, shapes.MeInfo, "Sign out")
ME: Final = _get("/api/auth/me", shapes.MeInfo, "Show who is signed in")
PEOPLE: Final = _post(
    "/api/tenant/people",
    asks.PeopleRequest,
    shapes.ByInfo,
    "Record a change of the embedded tenant's people",
)
EVENTS_PATH: Final = "/api/events"
"""The stream of server-sent events; see `EVENT_KINDS`."""
EVENT_KINDS: Final[dict[str, type[WireShape]]] = {
    "agent": shapes.AgentInfo,
    "token": shapes.TokenInfo,
    "stepup": shapes.StepUpInfo,
    "audit": history.EventInfo,
    "tenant": shapes.TenantInfo,
    "status": shapes.StatusInfo,
    "presence": shapes.PresenceInfo,
    "reset": shapes.HeadInfo,
}
"""The type of the data of each kind of server-sent event."""

CALLS: Final = tuple(
    value for value in list(globals().values()) if isinstance(value, ApiCall)
)
"""Every call there is."""
