"""The agents' HTTP: paths to handlers, without a framework."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

from agentvault_tui.broker.agents_api.action import (
    read_connection,
    read_exchange,
    read_narrowed,
    read_request,
    text_of,
)
from agentvault_tui.broker.agents_api.client_auth import (
    ALGORITHMS,
    METHODS,
    ClientAuth,
)
from agentvault_tui.broker.agents_api.evaluation import (
    EVALUATION,
    EVALUATIONS,
    decision_of,
    fault_of,
    pdp_metadata,
    read_batch,
    read_evaluation,
    wait_of,
)
from agentvault_tui.broker.agents_api.replies import (
    OAuthError,
    backchannel_reply,
    bad_client,
    error_reply,
    exchange_reply,
    introspection_reply,
    malformed,
    outcome_unknown,
    poll_reply,
    token_reply,
    too_fast,
    unavailable,
)
from agentvault_tui.broker.answers import (
    Denied,
    Disconnected,
    Escalated,
    Granted,
    Permitted,
    Provided,
    TenantUnavailable,
)
from agentvault_tui.broker.audience import audience_of, audiences_of
from agentvault_tui.broker.core import Broker, decide_anew
from agentvault_tui.broker.floods import SPAN
from agentvault_tui.broker.usecases.delegate import cut_off, pass_on
from agentvault_tui.broker.usecases.evaluate import evaluate
from agentvault_tui.broker.usecases.exchange import exchange
from agentvault_tui.broker.usecases.issue_for import issue_unscoped
from agentvault_tui.broker.usecases.policy_change import action_of
from agentvault_tui.broker.usecases.redeem import (
    deliver,
    introspect,
    poll,
    revoke_token,
)
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerError,
    LedgerUnwritableError,
    OutcomeUnknownError,
    OvertakenError,
    ShareTakenError,
    TooFastError,
)
from agentvault_tui.ledger import UsedAssertion
from agentvault_tui.model import DETAIL_TYPE, Agent, Token, TokenKind, sha256_hex
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.policy.resources import canonical_resource
from agentvault_tui.vault.credentials import VAULT_GRANT
from agentvault_tui.web.exchange import count_connection
from agentvault_tui.web.forms import BodyError, parse_body
from agentvault_tui.web.guard import read_body
from agentvault_tui.web.reply import Receive, Reply, Scope, Send, json_reply

CLIENT_CREDENTIALS: Final = "client_credentials"
CIBA: Final = "urn:openid:params:grant-type:ciba"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
"""RFC 8693 section 2.1."""
AUTHORIZE: Final = "/authorize"
TOKEN: Final = "/oauth/token"  # noqa: S105 - a path
INTROSPECT: Final = "/oauth/introspect"
REVOKE: Final = "/oauth/revoke"
BACKCHANNEL: Final = "/bc-authorize"
NO_RESPONSE: Final = "none"
"""OAuth 2.0 Multiple Response Type Encoding Practices, section 4."""


def metadata(issuer: str, catalogue: Catalogue, *, vault: bool) -> dict[str, object]:
    """Return the metadata of the authorization server at *issuer* (RFC 8414).

    With *vault* there are connections whose tokens can be exchanged for. There is no
    ``jwks_uri``: tokens are opaque. No client may use the authorization endpoint: MCP's
    official client takes no metadata without one, section 2 then wants response types,
    and ``none`` is the registered one that gives nothing.
    """
    metadata: dict[str, object] = {
        "issuer": issuer,
        "authorization_endpoint": issuer + AUTHORIZE,
        "token_endpoint": issuer + TOKEN,
        "introspection_endpoint": issuer + INTROSPECT,
        "revocation_endpoint": issuer + REVOKE,
        "backchannel_authentication_endpoint": issuer + BACKCHANNEL,
        "backchannel_token_delivery_modes_supported": ["poll"],
        "backchannel_user_code_parameter_supported": False,
        "grant_types_supported": [
            CLIENT_CREDENTIALS,
            CIBA,
            EXCHANGE,
            *([VAULT_GRANT] if vault else ()),
        ],
        "response_types_supported": [NO_RESPONSE],
        "scopes_supported": [scope.name for scope in catalogue],
        "authorization_details_types_supported": [DETAIL_TYPE],
    }
    for endpoint in ("token", "introspection", "revocation"):
        name = f"{endpoint}_endpoint_auth"
        metadata[f"{name}_methods_supported"] = list(METHODS)
        metadata[f"{name}_signing_alg_values_supported"] = list(ALGORITHMS)
    return metadata


_UNWRITABLE_SECONDS: Final = 5
_BUSY_SECONDS: Final = 1
_ACCESS: Final = frozenset({EVALUATION, EVALUATIONS})
_READING: Final = frozenset({INTROSPECT, *_ACCESS})
"""Paths whose answer depends on a token's state: all records of other brokers."""
_GRANTING: Final = frozenset({TOKEN, BACKCHANNEL, *_ACCESS})
_LARGE: Final = 4096
"""Bytes of body that make a request large. A body is read before its sender is known,
so any client could block the loop with large ones: they are admitted one a turn."""

_Answer = TypeVar("_Answer")
Form = dict[str, object]
Post = Callable[[Agent, Form, str | None], Awaitable[Reply]]
Get = Callable[[Scope], Reply]


class AgentsApi:
    """The agents' HTTP as one ASGI application; a guard has checked ``Host`` before."""

    def __init__(self, broker: Broker, issuer: str) -> None:
        """Serve *broker* at *issuer*, a URL without a slash at the end."""
        self._broker = broker
        self._issuer = broker.admitting.url = issuer
        self._admitting, self._deciding = broker.admitting, broker.deciding
        self._authenticate = ClientAuth(
            broker.registry,
            self._admitting.issuers,
            broker.clock,
            _audiences(issuer),
            self._admitting.replays,
        )
        self._posts: dict[str, Post] = {
            TOKEN: self._token,
            BACKCHANNEL: self._backchannel,
            INTROSPECT: self._introspect,
            REVOKE: self._revoke,
        }
        self._gets: dict[str, Get] = {
            AUTHORIZE: self._authorize,
            "/healthz": lambda _: json_reply(200, {"status": "ok"}),
            "/readyz": self._ready,
            "/.well-known/oauth-authorization-server": self._metadata,
            # Auth0's and OpenID clients look here; the content is the same.
            "/.well-known/openid-configuration": self._metadata,
            "/.well-known/authzen-configuration": self._access_metadata,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            reply = await self._answer(scope, receive)
        except OAuthError as fault:
            reply = fault.reply()
        except BodyError as error:
            reply = _unreadable(error)
        except OutcomeUnknownError as error:
            reply = outcome_unknown(error, _UNWRITABLE_SECONDS)
        except LedgerUnwritableError:
            text = "decisions cannot be recorded right now, so none is made"
            reply = unavailable(text, _UNWRITABLE_SECONDS).reply()
        except LedgerBusyError:
            text = "too many decisions wait to be recorded"
            reply = unavailable(text, _BUSY_SECONDS).reply()
        except ShareTakenError as error:
            reply = unavailable(error.what, _BUSY_SECONDS).reply()
        except TooFastError as error:
            reply = too_fast(error).reply()
        await reply.send(send)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        path, method = scope["path"], scope["method"]
        post = self._posts.get(path)
        if post is None and path not in _ACCESS:
            return await self._answer_get(scope)
        if method != "POST":
            raise _wrong_method(b"POST")
        headers = dict(scope["headers"])
        authorization = headers.get(b"authorization")
        body = await read_body(receive)
        admitting = self._admitting
        line = admitting.requests if path in _GRANTING else admitting.others
        await line.enter(large=len(body) >= _LARGE)
        form = parse_body(headers.get(b"content-type", b""), body)
        if path in _READING or (
            path == TOKEN and form.get("grant_type") != CLIENT_CREDENTIALS
        ):
            await self._broker.ledger.confirm()
        shown = None if post else self._shown_token(authorization, form)
        if shown:
            agent, used = self._broker.registry.agent(shown.agent_id), None
        else:
            agent, used = await self._client(authorization, form)
        # What ends tokens is never refused for want of a place.
        if path != REVOKE and not count_connection(agent.id):
            raise ShareTakenError("this agent has its share of the connections")
        handler = post or (lambda *args: self._access(scope, receive, shown, *args[:2]))

        async def answer() -> Reply:
            current = self._broker.registry.now(agent)
            if shown is None and current.credential != agent.credential:
                raise bad_client()  # replaced since, as another broker recorded
            return await handler(current, form, source)

        source = self._deciding.surroundings.source_of(scope)
        if path in _GRANTING and self._admitting.floods.limited(agent.id):
            raise self._slow_down(used)
        return await self._recorded(answer, used, path)

    async def _recorded(
        self,
        answer: Callable[[], Awaitable[Reply]],
        used: UsedAssertion | None,
        path: str,
    ) -> Reply:
        """Answer, and record the assertion that was *used*, if one was."""
        if used is None:
            return await decide_anew(answer)
        noting = asyncio.create_task(self._note(used, path))
        if self._broker.ledger.shared is not None:
            await noting  # another broker may have been shown the same assertion
        try:
            return await decide_anew(answer)
        finally:
            await noting

    async def _client(
        self, authorization: bytes | None, form: Form
    ) -> tuple[Agent, UsedAssertion | None]:
        """Authenticate the client; see `ClientAuth`.

        If it fails, again with the latest records of other brokers: an agent may have
        been registered, or its secret changed, a moment before.
        """
        try:
            return await self._authenticate(authorization, form)
        except OAuthError as refused:
            ledger = self._broker.ledger
            if refused.status != 401 or ledger.shared is None:
                raise
            await ledger.confirm()
            return await self._authenticate(authorization, form)

    async def _answer_get(self, scope: Scope) -> Reply:
        get = self._gets.get(scope["path"])
        if get is None:
            raise OAuthError(404, "not_found", "there is nothing at this path")
        if scope["method"] not in {"GET", "HEAD"}:
            raise _wrong_method(b"GET, HEAD")
        await self._admitting.others.enter()
        return get(scope)

    def _slow_down(self, used: UsedAssertion | None) -> OAuthError:
        """Return the answer to an agent that floods; nothing is decided or recorded."""
        if used is not None:  # it counts once all the same
            self._admitting.replays.save_later(used, self._broker.clock.now())
        text = f"refused too often: send no request for {SPAN} s"
        retry = (b"retry-after", b"%d" % SPAN)
        return OAuthError(429, "slow_down", text, headers=(retry,))

    def _counted(self, agent: Agent, answer: _Answer) -> _Answer:
        """Return *answer*, counted if it refuses the agent's request."""
        if not isinstance(answer, Granted | Provided | Permitted):
            self._admitting.floods.refused(agent.id)
        return answer

    async def _note(self, used: UsedAssertion, path: str) -> None:
        """Record that *used* counts no more; no answer leaves before.

        While the ledger cannot write nothing is issued; other requests continue.
        """
        if not self._admitting.replays.is_first(used):
            raise bad_client()  # another broker recorded it since it was looked up
        try:
            await self._broker.record(changes=[used])
        except OvertakenError:
            raise bad_client() from None  # it was shown to another broker as well
        except LedgerError:
            if path not in {INTROSPECT, REVOKE}:
                raise
            if not self._admitting.replays.save_later(used, self._broker.clock.now()):
                raise

    # Token endpoint and its kin

    async def _token(self, agent: Agent, form: Form, source: str | None) -> Reply:
        grant = text_of(form, "grant_type")
        if grant == CLIENT_CREDENTIALS:
            resource = canonical_resource(text_of(form, "resource"))
            if not text_of(form, "scope") and audience_of(resource, self._issuer):
                # RFC 6749 section 3.3: the default, where calls are decided one by one.
                granted = await issue_unscoped(self._broker, agent, resource, source)
                return token_reply(self._counted(agent, granted))
            wanted = read_request(form, self._deciding.policy.catalogue, self._issuer)
            answer = await request_token(
                self._broker,
                agent,
                wanted.action,
                resource=wanted.resource,
                details=wanted.details,
                source=source,
            )
            if isinstance(answer, Escalated) and not answer.stepup.status.open:
                # An approval stood in for a person: there is nothing to poll for.
                find, stepup_id = self._broker.stepups.get, answer.stepup.id
                given = await decide_anew(
                    lambda: deliver(self._broker, agent, find(stepup_id))
                )
                return poll_reply(self._counted(agent, given))
            return token_reply(self._counted(agent, answer))
        if grant == CIBA:
            auth_req_id = _needed(form, "auth_req_id")
            outcome = await poll(self._broker, agent, auth_req_id)
            if isinstance(outcome, Denied | Disconnected | TenantUnavailable):
                self._counted(agent, outcome)
            return poll_reply(outcome)
        if grant == VAULT_GRANT:
            connection = read_connection(form)
            provided = await exchange(self._broker, agent, connection, source)
            return exchange_reply(self._counted(agent, provided))
        if grant == EXCHANGE:
            answer = await self._pass_on(agent, form, source)
            return token_reply(self._counted(agent, answer))
        if grant is None:
            raise malformed("grant_type is missing")
        grants = f"{CLIENT_CREDENTIALS}, {CIBA}, {EXCHANGE} or {VAULT_GRANT}"
        text = f"grant_type may be {grants}"
        raise OAuthError(400, "unsupported_grant_type", text)

    async def _pass_on(
        self, agent: Agent, form: Form, source: str | None
    ) -> Granted | Denied:
        """Exchange a token of the client's own for one of another agent (RFC 8693).

        Raises:
            OAuthError: the subject token is no live standard one of the client's
                (section 2.2.2), there is no such agent, or the request makes no sense.
        """
        broker, wanted = self._broker, read_exchange(form)
        if denied := await cut_off(broker, agent):
            return denied
        parent = broker.registry.token(sha256_hex(wanted.subject_token))
        if parent is None or parent.agent_id != agent.id:
            raise malformed("subject_token is no live token of this client")
        if parent.kind is TokenKind.ELEVATED:
            raise malformed("a token that a person approved is never passed on")
        other = broker.registry.find_agent(wanted.audience)
        if other is None or not broker.registry.serves(other.id):
            text = "audience is no agent that is served: give its client_id"
            raise OAuthError(400, "invalid_target", text)
        catalogue, whole = broker.deciding.policy.catalogue, action_of(broker, parent)
        narrowed = read_narrowed(form, parent, whole, catalogue, self._issuer)
        return await pass_on(
            broker,
            agent,
            parent,
            other,
            narrowed.action,
            resource=narrowed.resource,
            details=narrowed.details,
            source=source,
        )

    async def _backchannel(self, agent: Agent, form: Form, source: str | None) -> Reply:
        catalogue = self._deciding.policy.catalogue
        wanted = read_request(form, catalogue, self._issuer, backchannel=True)
        answer = await request_token(
            self._broker,
            agent,
            wanted.action,
            resource=wanted.resource,
            details=wanted.details,
            source=source,
            backchannel=True,
        )
        return backchannel_reply(self._counted(agent, answer))

    async def _introspect(self, agent: Agent, form: Form, _: str | None) -> Reply:
        answer = await introspect(self._broker, agent, _needed(form, "token"))
        if answer.token is None:
            return introspection_reply(answer, "")
        owner = self._broker.registry.agent(answer.token.agent_id)
        return introspection_reply(answer, owner.client_id)

    async def _revoke(self, agent: Agent, form: Form, _: str | None) -> Reply:
        await revoke_token(self._broker, agent, _needed(form, "token"))
        return json_reply(200, {})

    # AuthZEN

    def _shown_token(self, authorization: bytes | None, form: Form) -> Token | None:
        """Return the live token that a request is authenticated by, if by one.

        It says which agent asks. One that is good for one action says nothing else.

        Raises:
            OAuthError: 401 ``invalid_token`` (RFC 6750 section 3.1).
        """
        scheme, _, text = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        if "client_secret" in form or "client_assertion" in form:
            raise malformed("use exactly one method of client authentication")
        token = self._broker.registry.token(sha256_hex(text.strip().decode("latin-1")))
        if token is None:
            raise _bad_token("the token is unknown, over, used up or revoked")
        if token.single_use or token.kind is TokenKind.ELEVATED:
            raise _bad_token("the token is good for one action, not for this")
        if token.chain:
            # Whoever passed it on has it too, and must not ask as its holder.
            raise _bad_token("the token was passed on, and says not who asks")
        if audiences_of(token.resource, self._issuer):
            raise _bad_token("the token is for the gateway, and good there alone")
        return token

    async def _access(
        self,
        scope: Scope,
        receive: Receive,
        shown: Token | None,
        agent: Agent,
        form: Form,
    ) -> Reply:
        """Answer an evaluation, or several.

        Raises:
            OAuthError: the request as a whole makes no sense; or the one evaluation
                that it asks for.
        """
        headers = dict(scope["headers"])
        source = self._deciding.surroundings.source_of(scope)
        if not headers.get(b"content-type", b"").startswith(b"application/json"):
            raise OAuthError(415, "invalid_request", "send application/json")
        echoed = tuple(
            (name, value) for name, value in headers.items() if name == b"x-request-id"
        )
        many, last = read_batch(form) if scope["path"] == EVALUATIONS else ([], None)
        if not many:
            wait = wait_of(headers.get(b"prefer", b""))
            gone = asyncio.ensure_future(receive()) if wait else None
            try:
                answer = await self._evaluate(
                    shown, agent, form, source, wait=wait, gone=gone
                )
            finally:
                if gone is not None:
                    gone.cancel()
            return json_reply(200, answer, *echoed)
        answers: list[dict[str, object]] = []
        for one in many:
            if answers:  # each is as much work as a request
                await self._admitting.requests.enter()
            try:
                answers.append(await self._evaluate(shown, agent, one, source))
            except OAuthError as fault:
                self._admitting.floods.refused(agent.id)
                answers.append(fault_of(fault))
            except TooFastError as error:
                answers.append(fault_of(too_fast(error)))
            if answers[-1]["decision"] is last:
                break
        return json_reply(200, {"evaluations": answers}, *echoed)

    async def _evaluate(
        self,
        shown: Token | None,
        agent: Agent,
        body: Mapping[str, Any],
        source: str | None,
        *,
        wait: float = 0.0,
        gone: asyncio.Future[Any] | None = None,
    ) -> dict[str, object]:
        action = read_evaluation(body, agent, self._deciding.policy.catalogue)
        if shown is not None and shown.resource not in {None, action.resource}:
            raise _bad_token("the token is for another resource (RFC 8707)")
        wait = min(wait, self._broker.settings.stepup.expires_in)
        answer = await evaluate(
            self._broker, agent, action, wait=wait, gone=gone, source=source
        )
        return decision_of(self._counted(agent, answer))

    # What needs no client

    def _authorize(self, scope: Scope) -> Reply:
        """Refuse an authorization request (RFC 6749 section 4.1.2.1).

        To the browser, never by a redirect: no client has registered an address.
        """
        text = f"agents ask at {TOKEN}; a person approves in the console, not here"
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if query.get("response_type") == [NO_RESPONSE]:
            raise OAuthError(400, "unauthorized_client", text)
        raise OAuthError(400, "unsupported_response_type", text)

    def _ready(self, _: Scope) -> Reply:
        ledger = self._broker.ledger.writable
        # With a broken file on disk the last good one stays in force, and decides; but
        # what was written to be in force is not, which whoever watches must see.
        policy = self._deciding.state.problem is None
        gateway = self._broker.extensions.gateway
        state = {"ledger_writable": ledger, "policy_loaded": policy}
        if gateway is not None:
            state["services_loaded"] = not gateway.warnings
        if all(state.values()):
            return json_reply(200, {"status": "ready", **state})
        retry = (b"retry-after", b"%d" % _UNWRITABLE_SECONDS)
        return json_reply(503, {"status": "not ready", **state}, retry)

    def _reached_at(self, scope: Scope) -> str:
        """Return the issuer as the client reached it (RFC 8414 section 3.3)."""
        host = dict(scope["headers"]).get(b"host")
        scheme = urlsplit(self._issuer).scheme
        return f"{scheme}://{host.decode('latin-1').lower()}" if host else self._issuer

    def _access_metadata(self, scope: Scope) -> Reply:
        return json_reply(200, pdp_metadata(self._reached_at(scope)))

    def _metadata(self, scope: Scope) -> Reply:
        catalogue = self._deciding.policy.catalogue
        vault = bool(self._broker.settings.connections)
        return json_reply(
            200, metadata(self._reached_at(scope), catalogue, vault=vault)
        )


def _audiences(issuer: str) -> frozenset[str]:
    """Return our possible audiences (RFC 7523 section 3, CIBA Core 7.1).

    Auth0's SDKs write ``https`` into an assertion whatever they speak, so a plain
    listener goes by that too; one with TLS never by ``http``.
    """
    ours = urlsplit(issuer)
    names = ("127.0.0.1", "[::1]", "localhost")
    schemes = {ours.scheme, "https"}
    bases = (f"{scheme}://{name}:{ours.port}" for scheme in schemes for name in names)
    issuers = {issuer, *bases}
    return frozenset(
        base + path for base in issuers for path in ("", "/", TOKEN, BACKCHANNEL)
    )


def _needed(form: Form, name: str) -> str:
    value = text_of(form, name)
    if not value:
        raise malformed(f"{name} is missing")
    return value


def _bad_token(text: str) -> OAuthError:
    challenge = (b"www-authenticate", b'Bearer error="invalid_token"')
    return OAuthError(401, "invalid_token", text, headers=(challenge,))


def _wrong_method(allowed: bytes) -> OAuthError:
    text = f"use {allowed.decode()}"
    return OAuthError(405, "method_not_allowed", text, headers=((b"allow", allowed),))


def _unreadable(error: BodyError) -> Reply:
    word = (
        "invalid_authorization_details"
        if error.member == "authorization_details"
        else "invalid_request"
    )
    return error_reply(error.status, word, error.text)
