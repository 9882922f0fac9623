"""The operators' calls: method, path, and the types of query, body and answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import quote

from agentvault_tui.operator_api import (
    access,
    advice,
    alerts,
    files,
    gateway,
    history,
    limits,
    planning,
    shapes,
)
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.operator_api.shapes import WireShape

AnswerT = TypeVar("AnswerT", bound=WireShape)


@dataclass(frozen=True, slots=True)
class ApiCall(Generic[AnswerT]):
    """One call of the operators' HTTP; what it is about say its types."""

    method: str
    path: str
    """With each parameter in braces, as OpenAPI and Starlette write it."""
    answer: type[AnswerT]
    asks: type[WireShape] | None = None
    """The query of a ``GET``, the body of a ``POST``."""
    status: int = 200
    also: int | None = None
    """Another status of success."""
    seconds: float | None = None
    """How long its answer may take, where all of the history is read for it."""

    def at(self, **parameters: str | int) -> str:
        """Return the path with its parameters filled in, each quoted as one segment."""
        path = self.path.replace(":int", "")
        return path.format_map(
            {name: quote(str(value), safe="") for name, value in parameters.items()}
        )


def _get(
    path: str, answer: type[AnswerT], query: type[WireShape] | None = None
) -> ApiCall[AnswerT]:
    return ApiCall("GET", path, answer, query)


def _post(
    path: str,
    body: type[WireShape] | None,
    answer: type[AnswerT],
    status: int = 200,
    also: int | None = None,
    *,
    seconds: float | None = None,
) -> ApiCall[AnswerT]:
    return ApiCall("POST", path, answer, body, status, also, seconds)


_HISTORY: Final = 600.0
_AGENTS, _STEPUP, _LINKED = "/api/agents", "/api/agents/stepup", "/api/connections"

AGENTS: Final = _get(_AGENTS, shapes.AgentPage, asks.AgentQuery)
AGENT: Final = _get(f"{_AGENTS}/{{id}}", shapes.AgentInfo)
ACTIVITY: Final = _get(f"{_AGENTS}/{{id}}/activity", history.ActivityInfo)
REGISTER: Final = _post(_AGENTS, asks.AgentRequest, shapes.NewAgentInfo, 201)
NEW_SECRET: Final = _post(
    f"{_AGENTS}/secret", asks.NewSecretRequest, shapes.NewAgentInfo
)
SCOPES: Final = _post(f"{_AGENTS}/scopes", asks.ScopesRequest, shapes.ScopesAnswer)
RATE: Final = _post(f"{_AGENTS}/rate", asks.RateRequest, shapes.AgentInfo)
DELEGATES: Final = _post(
    f"{_AGENTS}/delegates", asks.DelegatesRequest, shapes.ScopesAnswer
)
TREE: Final = _get("/api/delegations", access.DelegationTree, asks.TreeQuery)
REVOKE: Final = _post(f"{_AGENTS}/revoke", asks.RevokeRequest, shapes.RevokeAnswer)
REVOKE_TOKEN: Final = _post(
    "/api/tokens/revoke", asks.TokenRevokeRequest, access.TokenRevokeAnswer
)
TOKEN: Final = _post(f"{_AGENTS}/token", access.IssueRequest, access.IssuedTokenInfo)
RESTORE: Final = _post(f"{_AGENTS}/restore", asks.RestoreRequest, shapes.RestoreAnswer)
STEPUPS: Final = _get(_STEPUP, shapes.StepUpList, asks.StepUpQuery)
STEPUP: Final = _get(f"{_STEPUP}/{{id}}", shapes.StepUpInfo, asks.StepUpShowQuery)
BEFORE: Final = _get(f"{_STEPUP}/{{id}}/before", shapes.StepUpList, asks.BeforeQuery)
DECIDE: Final = _post(_STEPUP, asks.DecisionRequest, shapes.StepUpInfo, 200, 202)
STEPUP_BODY: Final = _get(f"{_STEPUP}/{{id}}/body", gateway.HeldBody)
IN_FLIGHT: Final = _get("/api/calls", gateway.CallList)
CUT_CALL: Final = _post("/api/calls/{id}/cut", None, gateway.CallInfo)
CONNECTIONS: Final = _get(_LINKED, shapes.ConnectionList, asks.ConnectionQuery)
CONNECT: Final = _post(_LINKED, asks.ConnectRequest, shapes.ConnectStepInfo, 201)
CONTINUE: Final = _post(
    f"{_LINKED}/continue", asks.ContinueRequest, shapes.ConnectStepInfo, 200, 201
)
REMOVE: Final = _post(f"{_LINKED}/remove", asks.RemoveRequest, shapes.RemovedInfo)
AUDIT: Final = _get("/api/audit", history.EventPageInfo, asks.AuditQuery)
LINKS: Final = _get("/api/audit/links", history.LinkList, asks.LinksQuery)
EVENT: Final = _get("/api/audit/{seq:int}", history.EventProofInfo)
STORY: Final = _get("/api/audit/{seq:int}/story", history.StoryInfo)
PAST: Final = _get("/api/past", history.PastInfo, asks.PastQuery)
PAST_ACTIVITY: Final = _get(
    "/api/past/activity", history.PastActivityInfo, asks.PastActivityQuery
)
POLICY: Final = _get("/api/policy", planning.PolicyInfo, asks.PolicyQuery)
EXPLAIN: Final = _post("/api/policy/explain", asks.ExplainRequest, shapes.ExplainInfo)
APPLY_POLICY: Final = _post("/api/policy/apply", asks.ApplyRequest, planning.PolicyInfo)
PLAN: Final = _post(
    "/api/policy/plan", planning.PlanRequest, planning.PlanInfo, seconds=_HISTORY
)
SHADOW: Final = _post(
    "/api/policy/shadow", planning.ShadowRequest, planning.ShadowAnswer
)
ADVICE: Final = ApiCall(
    "GET", "/api/advice", advice.AdviceList, advice.AdviceQuery, seconds=_HISTORY
)
APPLY_ADVICE: Final = _post(
    "/api/advice/{id}/apply",
    *(advice.ApplyAdviceRequest, advice.AdviceInfo),
    seconds=_HISTORY,
)
DISMISS_ADVICE: Final = ApiCall(
    "POST", "/api/advice/{id}/dismiss", advice.AdviceInfo, seconds=_HISTORY
)
GIVE_BACK: Final = _post("/api/advice/{id}/give-back", None, advice.AdviceInfo)
RESET_POLICY: Final = _post("/api/policy/reset", None, planning.PolicyInfo)
LIMITS: Final = _get("/api/limits", limits.LimitList)
STATUS: Final = _get("/api/status", shapes.StatusInfo)
TEAM_KEY: Final = _post("/api/team/key", asks.TeamKeyRequest, access.TeamKeyInfo)
PRESENCE: Final = _get("/api/presence", shapes.PresenceInfo)
LOOK: Final = _post("/api/presence", asks.LookRequest, shapes.PresenceInfo)
LOGIN: Final = _post("/api/auth/login", None, shapes.MeInfo, 202)
SIGN_IN: Final = _post("/api/auth/session", None, access.SignInInfo, 202)
LOGOUT: Final = _post("/api/auth/logout", None, shapes.MeInfo)
ME: Final = _get("/api/auth/me", shapes.MeInfo)
PEOPLE: Final = _post("/api/tenant/people", asks.PeopleRequest, shapes.ByInfo)
SERVICES: Final = _get("/api/services", gateway.ServiceList)
SERVICE: Final = _get("/api/services/{name}", gateway.ServiceInfo)
PROBE: Final = _post(
    "/api/services/{name}/probe", None, gateway.ServiceProbe, seconds=60.0
)
TRY: Final = _post("/api/services/try", asks.TryRequest, gateway.TryInfo)
SECRETS: Final = _get("/api/secrets", gateway.SecretList)
SET_SECRET: Final = _post("/api/secrets", asks.SecretRequest, gateway.SecretList)
REMOVE_SECRET: Final = _post(
    "/api/secrets/remove", asks.SecretNameRequest, gateway.SecretList
)
ROTATE_KEY: Final = _post("/api/secrets/rotate-key", None, gateway.SecretList)
HOOK: Final = _post("/api/hooks/{host}", access.HookRequest, access.HookInfo)
RUN: Final = _post("/api/runs", access.RunRequest, access.RunInfo, 201)
RUN_NEWS: Final = _post("/api/runs/{id}/news", None, access.RunNewsInfo)
END_RUN: Final = _post("/api/runs/{id}/end", None, access.RunNewsInfo)
ALERTS: Final = _get("/api/alerts", alerts.AlertList)
TEST_SINK: Final = _post(
    "/api/alerts/test", alerts.TestSinkRequest, alerts.AlertSentInfo
)
RETRY_ALERT: Final = _post(
    "/api/alerts/retry", alerts.RetryAlertRequest, alerts.AlertSentInfo
)
FILES: Final = _get("/api/files", files.FilesInfo)
APPLY_FILES: Final = _post("/api/files", files.FilesRequest, files.FilesAnswer)
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
    "call": gateway.CallInfo,
    "reset": shapes.HeadInfo,
}
"""The type of the data of each kind of server-sent event."""

CALLS: Final = tuple(
    value for value in list(globals().values()) if isinstance(value, ApiCall)
)
"""Every call there is."""
