"""The operators' calls: method, path, types of query, body and answer, and `Access`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar
from urllib.parse import quote

from agentvault_tui.operator_api import (
    access,
    advice,
    alerts,
    changes,
    ending,
    files,
    gateway,
    history,
    limits,
    planning,
    shapes,
    stepups,
)
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.operator_api.sessions import KeyChallenge, MeInfo
from agentvault_tui.operator_api.shapes import WireShape

AnswerT = TypeVar("AnswerT", bound=WireShape)


class Access(StrEnum):
    """The right that a call needs of a remote operator; see docs/remote.md.

    At the socket the uid is the check, as `broker.authority` says.
    """

    SESSION = "session"
    """A session alone, whatever its role: it is about that session."""
    READ = "read"
    """The role viewer: it changes nothing."""
    TIGHTEN = "tighten"
    """The role operator: nothing that was refused is allowed after it."""
    EITHER = "either"
    """The role operator; for the part that loosens the role approver and a factor."""
    LOOSEN = "loosen"
    """The role approver, and a factor that is proven for exactly this change."""
    DECIDE = "decide"
    """To deny the role operator; to approve the role approver and a factor."""
    MACHINE = "machine"
    """It is done on the broker's machine alone: 409 for every role."""


@dataclass(frozen=True, slots=True)
class ApiCall(Generic[AnswerT]):
    """One call of the operators' HTTP; its types give its content."""

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
    access: Access = Access.READ
    """The right it needs elsewhere; a ``POST`` always names it."""

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
    access: Access,
    path: str,
    body: type[WireShape] | None,
    answer: type[AnswerT],
    status: int = 200,
    *,
    also: int | None = None,
    seconds: float | None = None,
) -> ApiCall[AnswerT]:
    # A change that waits for a person is answered with 202.
    if access in {Access.EITHER, Access.LOOSEN} and also is None:
        also = 202
    return ApiCall("POST", path, answer, body, status, also, seconds, access)


_HISTORY: Final = 600.0
_AGENTS, _STEPUP, _LINKED = "/api/agents", "/api/agents/stepup", "/api/connections"

AGENTS: Final = _get(_AGENTS, shapes.AgentPage, asks.AgentQuery)
AGENT: Final = _get(f"{_AGENTS}/{{id}}", shapes.AgentInfo)
ACTIVITY: Final = _get(f"{_AGENTS}/{{id}}/activity", history.ActivityInfo)
REGISTER: Final = _post(
    Access.EITHER, _AGENTS, asks.AgentRequest, shapes.NewAgentInfo, 201
)
NEW_SECRET: Final = _post(
    Access.LOOSEN, f"{_AGENTS}/secret", asks.NewSecretRequest, shapes.NewAgentInfo
)
SCOPES: Final = _post(
    Access.EITHER, f"{_AGENTS}/scopes", asks.ScopesRequest, ending.ScopesAnswer
)
RATE: Final = _post(
    Access.EITHER, f"{_AGENTS}/rate", asks.RateRequest, shapes.AgentInfo
)
RENAME_AGENT: Final = _post(
    Access.LOOSEN, f"{_AGENTS}/rename", asks.RenameRequest, shapes.AgentInfo
)
REMOVE_AGENT: Final = _post(
    Access.EITHER, f"{_AGENTS}/remove", asks.AgentRemoveRequest, shapes.AgentInfo
)
DELEGATES: Final = _post(
    Access.EITHER, f"{_AGENTS}/delegates", asks.DelegatesRequest, ending.ScopesAnswer
)
TREE: Final = _get("/api/delegations", access.DelegationTree, asks.TreeQuery)
REVOKE: Final = _post(
    Access.TIGHTEN, f"{_AGENTS}/revoke", asks.RevokeRequest, ending.RevokeAnswer
)
TOKEN: Final = _post(
    Access.LOOSEN, f"{_AGENTS}/token", access.IssueRequest, access.IssuedTokenInfo
)
RESTORE: Final = _post(
    Access.EITHER, f"{_AGENTS}/restore", asks.RestoreRequest, shapes.RestoreAnswer
)
REVOKE_TOKEN: Final = _post(
    Access.TIGHTEN,
    "/api/tokens/revoke",
    asks.TokenRevokeRequest,
    ending.TokenRevokeAnswer,
)
STEPUPS: Final = _get(_STEPUP, stepups.StepUpList, asks.StepUpQuery)
STEPUP: Final = _get(f"{_STEPUP}/{{id}}", stepups.StepUpInfo, asks.StepUpShowQuery)
BEFORE: Final = _get(f"{_STEPUP}/{{id}}/before", stepups.StepUpList, asks.BeforeQuery)
DECIDE: Final = _post(
    Access.DECIDE, _STEPUP, asks.DecisionRequest, ending.DecisionAnswer, also=202
)
KEY_CHALLENGE: Final = _post(
    Access.DECIDE, f"{_STEPUP}/key", asks.KeyRequest, KeyChallenge
)
STEPUP_BODY: Final = _get(f"{_STEPUP}/{{id}}/body", gateway.HeldBody)
IN_FLIGHT: Final = _get("/api/calls", gateway.CallList)
CUT_CALL: Final = _post(Access.TIGHTEN, "/api/calls/{id}/cut", None, gateway.CallInfo)
CONNECTIONS: Final = _get(_LINKED, shapes.ConnectionList, asks.ConnectionQuery)
CONNECT: Final = _post(
    Access.LOOSEN, _LINKED, asks.ConnectRequest, shapes.ConnectStepInfo, 201
)
CONTINUE: Final = _post(
    Access.LOOSEN,
    f"{_LINKED}/continue",
    asks.ContinueRequest,
    shapes.ConnectStepInfo,
    also=201,
)
REMOVE: Final = _post(
    Access.TIGHTEN, f"{_LINKED}/remove", asks.RemoveRequest, shapes.RemovedInfo
)
AUDIT: Final = _get("/api/audit", history.EventPageInfo, asks.AuditQuery)
LINKS: Final = _get("/api/audit/links", history.LinkList, asks.LinksQuery)
EVENT: Final = _get("/api/audit/{seq:int}", history.EventProofInfo)
STORY: Final = _get("/api/audit/{seq:int}/story", history.StoryInfo)
PAST: Final = _get("/api/past", history.PastInfo, asks.PastQuery)
PAST_ACTIVITY: Final = _get(
    "/api/past/activity", history.PastActivityInfo, asks.PastActivityQuery
)
POLICY: Final = _get("/api/policy", planning.PolicyInfo, asks.PolicyQuery)
EXPLAIN: Final = _post(
    Access.READ, "/api/policy/explain", asks.ExplainRequest, planning.ExplainInfo
)
APPLY_POLICY: Final = _post(
    Access.EITHER, "/api/policy/apply", asks.ApplyRequest, planning.PolicyInfo
)
PLAN: Final = _post(
    Access.READ,
    "/api/policy/plan",
    planning.PlanRequest,
    planning.PlanInfo,
    seconds=_HISTORY,
)
SHADOW: Final = _post(
    Access.TIGHTEN, "/api/policy/shadow", planning.ShadowRequest, planning.ShadowAnswer
)
ADVICE: Final = ApiCall(
    "GET", "/api/advice", advice.AdviceList, advice.AdviceQuery, seconds=_HISTORY
)
APPLY_ADVICE: Final = _post(
    Access.TIGHTEN,
    "/api/advice/{id}/apply",
    *(advice.ApplyAdviceRequest, advice.AdviceInfo),
    seconds=_HISTORY,
)
DISMISS_ADVICE: Final = _post(
    Access.TIGHTEN,
    "/api/advice/{id}/dismiss",
    None,
    advice.AdviceInfo,
    seconds=_HISTORY,
)
GIVE_BACK: Final = _post(
    Access.LOOSEN, "/api/advice/{id}/give-back", None, advice.AdviceInfo
)
RESET_POLICY: Final = _post(
    Access.LOOSEN, "/api/policy/reset", None, planning.PolicyInfo
)
LIMITS: Final = _get("/api/limits", limits.LimitList)
STATUS: Final = _get("/api/status", shapes.StatusInfo)
TEAM_KEY: Final = _post(
    Access.LOOSEN, "/api/team/key", asks.TeamKeyRequest, access.TeamKeyInfo
)
PRESENCE: Final = _get("/api/presence", shapes.PresenceInfo)
LOOK: Final = _post(Access.READ, "/api/presence", asks.LookRequest, shapes.PresenceInfo)
LOGIN: Final = _post(Access.MACHINE, "/api/auth/login", None, MeInfo, 202)
SIGN_IN: Final = _post(
    Access.SESSION, "/api/auth/session", None, access.SignInInfo, 202
)
LOGOUT: Final = _post(Access.SESSION, "/api/auth/logout", None, MeInfo)
ME: Final = ApiCall("GET", "/api/auth/me", MeInfo, access=Access.SESSION)
PEOPLE: Final = _post(
    Access.MACHINE, "/api/tenant/people", asks.PeopleRequest, shapes.ChangedPersonInfo
)
TENANT_KEYS: Final = _post(
    Access.MACHINE, "/api/tenant/keys", asks.TenantKeysRequest, shapes.ByInfo
)
SERVICES: Final = _get("/api/services", gateway.ServiceList)
SERVICE: Final = _get("/api/services/{name}", gateway.ServiceInfo)
PROBE: Final = _post(
    Access.MACHINE,
    "/api/services/{name}/probe",
    None,
    gateway.ServiceProbe,
    seconds=60.0,
)
TRY: Final = _post(Access.READ, "/api/services/try", asks.TryRequest, gateway.TryInfo)
SECRETS: Final = _get("/api/secrets", gateway.SecretList)
SET_SECRET: Final = _post(
    Access.LOOSEN, "/api/secrets", asks.SecretRequest, gateway.SecretList
)
REMOVE_SECRET: Final = _post(
    Access.EITHER, "/api/secrets/remove", asks.SecretNameRequest, gateway.SecretList
)
ROTATE_KEY: Final = _post(
    Access.TIGHTEN, "/api/secrets/rotate-key", None, gateway.SecretList
)
HOOK: Final = _post(
    Access.TIGHTEN, "/api/hooks/{host}", access.HookRequest, access.HookInfo
)
CONNECTED: Final = _post(
    Access.MACHINE, "/api/hooks/{host}/connected", None, access.ConnectedInfo
)
RUN: Final = _post(Access.MACHINE, "/api/runs", access.RunRequest, access.RunInfo, 201)
RUN_NEWS: Final = _post(Access.MACHINE, "/api/runs/{id}/news", None, access.RunNewsInfo)
END_RUN: Final = _post(Access.MACHINE, "/api/runs/{id}/end", None, access.RunNewsInfo)
CONFINED: Final = _post(
    Access.MACHINE,
    "/api/runs/{id}/confined",
    access.ConfinedRequest,
    access.RecordedInfo,
)
ATTEMPTS: Final = _post(
    Access.MACHINE,
    "/api/runs/{id}/attempts",
    access.AttemptsRequest,
    access.RecordedInfo,
)
ALERTS: Final = _get("/api/alerts", alerts.AlertList)
TEST_SINK: Final = _post(
    Access.TIGHTEN, "/api/alerts/test", alerts.TestSinkRequest, alerts.AlertSentInfo
)
RETRY_ALERT: Final = _post(
    Access.TIGHTEN, "/api/alerts/retry", alerts.RetryAlertRequest, alerts.AlertSentInfo
)
FILES: Final = _get("/api/files", files.FilesInfo)
APPLY_FILES: Final = _post(
    Access.EITHER, "/api/files", files.FilesRequest, files.FilesAnswer
)
CHANGES: Final = _get("/api/changes", changes.ChangeList, changes.ChangeQuery)
CHANGE: Final = _get("/api/changes/{id}", changes.ChangeInfo)
DECIDE_CHANGE: Final = _post(
    Access.DECIDE, "/api/changes", changes.ChangeDecision, changes.ChangeInfo, also=202
)
EVENTS_PATH: Final = "/api/events"
CLAIM_HEADER: Final = "agentvault-claim"
"""A random text of a program at the socket: only it gets the answers of its changes."""
"""The stream of server-sent events; see `EVENT_KINDS`."""
METRICS_PATH: Final = "/metrics"
EVENT_KINDS: Final[dict[str, type[WireShape]]] = {
    "agent": shapes.AgentInfo,
    "token": shapes.TokenInfo,
    "stepup": stepups.StepUpInfo,
    "audit": history.EventInfo,
    "loosened": history.LoosenedInfo,
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
ACCESS: Final = {
    ("GET", EVENTS_PATH): Access.READ,
    ("GET", METRICS_PATH): Access.READ,
    **{(one.method, one.path): one.access for one in CALLS},
}
"""Every route of the operators' HTTP, and the right of an operator elsewhere.

No route that is not here is served, and the docs' table of roles is made from it.
"""
