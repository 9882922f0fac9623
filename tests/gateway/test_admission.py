"""Whether a call may go out: what a token must be, and what a person's yes covers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from httpx import Response
from support.bench import OPERATOR
from support.call_kit import BEARER, PAY, ROUTES, again, bearer, held, paying
from support.gateway_stand import Stand
from support.stepups import details_of
from support.web_kit import talk

from agentvault_tui.broker.answers import Escalated, Granted
from agentvault_tui.broker.floods import BURST
from agentvault_tui.broker.usecases.delegate import change_delegates, pass_on
from agentvault_tui.broker.usecases.evaluate import evaluate
from agentvault_tui.broker.usecases.issue_for import issue_for, issue_unscoped
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.rate import change_rate
from agentvault_tui.broker.usecases.redeem import poll, revoke_token
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import panic, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.caller import Permit
from agentvault_tui.model import Action, Agent, StepUp
from agentvault_tui.policy.texts import shipped_policy, shipped_scopes

MORE = """
[[routes]]
method = "PUT"
path = "/shares/{id}"
scope = "delete:files"
[[routes]]
method = "POST"
path = "/mails"
scope = "send:email"
resource = "mail:ada"
[routes.parameters]
recipients = "count:query:to"
[[routes]]
method = "GET"
path = "/days/{day}"
scope = "read:files"
resource = "day:{day}"
[routes.parameters]
count = "query:n"
[[routes]]
method = "POST"
path = "/notes"
scope = "write:calendar"
[routes.parameters]
n = "body:/n"
"""
NO = '@id("no")\n@why("It is late.")\nforbid (principal, action, resource)\n'
SCOPES = "read:calendar", "write:calendar", "send:payment", "delete:files", "send:email"


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    await stand.secret()
    await stand.service(BEARER + ROUTES + MORE)
    return await stand.agent(*SCOPES)


@pytest.fixture
async def token(stand: Stand, agent: Agent) -> str:
    return await stand.token(agent, "read:calendar")


@pytest.mark.parametrize(
    ("call", "status"),
    [("DELETE /events/e1", 403), ("PUT /upload/e1", 403), ("GET /%2e", 400)],
    ids=["no route", "a scope the token lacks", "a bad path"],
)
async def test_each_refusal_counts_towards_a_flood(
    stand: Stand, agent: Agent, token: str, call: str, status: int
) -> None:
    """Past an agent's budget it is answered 429, and none of it is recorded."""
    for _ in range(BURST):
        stand.bench.broker.admitting.floods.refused(agent.id)

    method, path = call.split()

    async def ask() -> tuple[int, str, str | None]:
        request = stand.client.build_request(method, "/", headers=bearer(token))
        request.url = request.url.copy_with(raw_path=f"/gw/api{path}".encode())
        reply = await stand.client.send(request)
        return (
            reply.status_code,
            reply.json()["error"],
            reply.headers.get("retry-after"),
        )

    assert (await ask())[0] == status
    recorded = len(await stand.bench.events())
    assert await ask() == (429, "slow_down", "10")
    await revoke_agent(stand.bench.broker, agent.id, "", OPERATOR)
    after = len(await stand.bench.events())
    assert (await ask())[:2] == (401, "invalid_token")
    assert (recorded + 1, after) == (after, len(await stand.bench.events()))


async def test_a_call_without_its_body_is_recorded_as_refused(
    stand: Stand, token: str
) -> None:
    """One that a person would have to see and that is too large to be kept."""
    asked = (
        "PUT /gw/api/shares/1 HTTP/1.1\r\nHost: @\r\nConnection: close\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        "Content-Length: 1048577\r\n\r\n"
    )
    reply = await talk(stand.listener, asked.encode())
    assert reply.startswith(b"HTTP/1.1 413"), reply
    (refused,) = await stand.bench.events("gateway.refused")
    assert refused.reason == "body_too_large"
    assert (refused.decision_id or "").encode() in reply
    assert stand.bench.broker.stepups.open() == []


async def test_who_is_revoked_while_a_body_arrives_asks_nobody(
    stand: Stand, agent: Agent, token: str
) -> None:
    """No step-up of a revoked agent is opened by what it had begun to send."""
    gate, bench = asyncio.Event(), stand.bench
    bench.clock.advance(1)

    async def body() -> AsyncIterator[bytes]:
        yield b'{"amount": 4200,'
        await gate.wait()
        yield b'"currency": "USD"}'

    headers = bearer(token, **{"content-type": "application/json"})
    asking = asyncio.create_task(
        stand.client.post("/gw/api/transfers/a", headers=headers, content=body())
    )
    seen = bench.broker.registry.last_seen
    await bench.until(lambda: seen(agent.id) == bench.clock.now())
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    gate.set()
    reply = await asking
    assert (reply.status_code, reply.json()["reason"]) == (401, "agent_revoked")
    assert await bench.events("stepup.requested") == []


async def test_a_scope_is_compared_whole(stand: Stand, agent: Agent) -> None:
    """A token for a scope whose name begins with the route's is no token for it."""
    longer = shipped_scopes().replace('"read:email"', '"read:calendars"')
    stand.bench.home.scopes_file.write_text(longer)
    await reload_policy(stand.bench.broker)
    other = await stand.agent("read:calendar", "read:calendars", name="other")
    token = await stand.token(other, "read:calendars")
    reply = await stand.client.get("/gw/api/events/e1", headers=bearer(token))
    assert (reply.status_code, reply.json()["error"]) == (403, "insufficient_scope")
    # What is decided anew about old requests must know that it was the token.
    (refused,) = await stand.bench.events("gateway.refused")
    assert refused.detail["facts"]["token_lacks_scope"] is True


async def test_a_narrowed_token_opens_nothing_that_policy_merely_allows(
    stand: Stand, agent: Agent
) -> None:
    """A person may let its bearer pay; a rule that allows small payments does not."""
    small = "context has amount && context.amount <= 5000"
    pays = 'permit (principal, action in Action::"payments", resource'
    mine = f'@id("small")\n@why("Few.")\n@obligation("allow")\n{pays})'
    text = re.sub(r'@id\("high-risk.*?;', "", shipped_policy(), flags=re.DOTALL)
    text = text.replace(f"{pays});", f"{pays})\nunless {{ {small} }};")
    text += f"{mine}\nwhen {{ {small} }};\n"
    stand.bench.home.policy_file.write_text(text)
    await reload_policy(stand.bench.broker)
    assert not stand.bench.broker.deciding.state.problem
    narrowed = await stand.token(agent, "read:calendar")
    whole = await stand.token(agent, "read:calendar write:calendar")
    unscoped = await issue_unscoped(stand.bench.broker, agent, None, None)
    assert isinstance(unscoped, Granted)

    async def pay(token: str, amount: int) -> tuple[int, str | None]:
        body = {"amount": amount, "currency": "USD"}
        headers = bearer(token, Prefer="respond-async")
        path = "/gw/api/transfers/a"
        reply = await stand.client.post(path, headers=headers, json=body)
        error = reply.headers.get("agentvault-error")
        return reply.status_code, error

    assert await pay(narrowed, 42) == (403, "insufficient_scope")
    assert await pay(narrowed, 5001) == (403, "insufficient_user_authentication")
    assert (await pay(whole, 42))[0] == 200
    assert (await pay(unscoped.access_token, 42))[0] == 200


async def test_a_token_that_states_an_action_opens_no_other_scope(
    stand: Stand, agent: Agent
) -> None:
    """Also where a rule reads resources, so that policy issues no bare token at all."""
    text = shipped_policy() + (
        '@id("no-x")\n@why("It is closed.")\n'
        'forbid (principal, action, resource == Resource::"api:x");\n'
    )
    stand.bench.home.policy_file.write_text(text)
    await reload_policy(stand.bench.broker)
    action = Action(("read:files",), "read:files", "day:1", {})
    more = frozenset({"read:files"})
    await change_scopes(stand.bench.broker, agent.id, more, frozenset(), OPERATOR)
    reader = stand.bench.broker.registry.agent(agent.id)
    granted = await request_token(
        stand.bench.broker, reader, action, resource=None, details=details_of(action)
    )
    assert isinstance(granted, Granted), granted
    shown = bearer(granted.access_token)
    reply = await stand.client.get("/gw/api/days/1", headers=shown)
    assert reply.status_code == 200
    reply = await stand.client.post("/gw/api/mails?to=a", headers=shown)
    assert (reply.status_code, reply.json()["error"]) == (403, "insufficient_scope")
    assert len(stand.upstream.received) == 1


async def mail_token(stand: Stand, agent: Agent) -> str:
    """Return a token that policy issues at once, good for one message."""
    action = Action(("send:email",), "send:email", "mail:ada", {"recipients": 1})
    granted = await request_token(
        stand.bench.broker, agent, action, resource=None, details=details_of(action)
    )
    assert isinstance(granted, Granted)
    return granted.access_token


async def test_a_token_good_for_one_action_opens_one_call(
    stand: Stand, agent: Agent
) -> None:
    """A message that policy allowed at once is sent once."""
    shown = bearer(await mail_token(stand, agent))
    for status in (200, 401):
        reply = await stand.client.post("/gw/api/mails?to=a@x.test", headers=shown)
        assert reply.status_code == status
    assert len(stand.upstream.received) == 1


@pytest.mark.parametrize(
    ("call", "beyond"),
    [
        ("/days/1?n=3", None),
        ("/days/1?n=4", "parameter count"),
        ("/days/1", "parameter count"),
        ("/days/2?n=3", "resource"),
    ],
)
async def test_a_call_is_within_what_was_passed_on(
    stand: Stand, agent: Agent, call: str, beyond: str | None
) -> None:
    """Its resource, and each number, as the token's own details say them."""
    broker = stand.bench.broker
    first = await stand.agent("read:files", name="first")
    scopes = frozenset({"read:files"})
    await change_delegates(broker, first.id, agent.id, scopes, OPERATOR)
    mine, less = (
        Action(("read:files",), "read:files", "day:1", {"count": most})
        for most in (5, 3)
    )
    own = await request_token(
        broker, first, mine, resource=None, details=details_of(mine)
    )
    assert isinstance(own, Granted)
    given = await pass_on(
        broker, first, own.token, agent, less, resource=None, details=details_of(less)
    )
    assert isinstance(given, Granted)
    reply = await stand.client.get(f"/gw/api{call}", headers=bearer(given.access_token))
    if beyond is None:
        assert reply.status_code == 200
        return
    body = reply.json()
    assert (reply.status_code, body["reason"]) == (403, "wider_than_parent")
    assert beyond in body["error_description"]
    assert stand.upstream.received == []


async def waiting(
    stand: Stand, token: str
) -> tuple[asyncio.Task[Response], StepUp, Call]:
    """Return a payment that waits for a person, its step-up, and the call."""
    asking = paying(stand, token, "/gw/api/transfers/acct_1?memo=x")
    stepup = await stand.pending()
    (call,) = stand.gateway.calls
    return asking, stepup, call


async def test_a_call_whose_agent_leaves_as_a_person_approves_is_not_sent(
    stand: Stand, token: str
) -> None:
    """Nobody would have its answer; a retry still can be sent."""
    asking, stepup, call = await waiting(stand, token)

    async def leave() -> None:
        await stand.bench.broker.stepups.decision(stepup.id)
        call.gone.set_result(None)

    leaving = asyncio.create_task(leave())
    await asyncio.sleep(0)
    await stand.approve(stepup.id)
    await leaving
    await stand.bench.until(lambda: not list(stand.gateway.calls))
    assert stand.upstream.received == []
    asking.cancel()
    assert (await again(stand, token, stepup.id)).status_code == 200


async def test_what_policy_denies_by_now_is_not_sent(stand: Stand, token: str) -> None:
    """It was asked in time, and approved when the hours for it were over."""
    stand.bench.home.policy_file.write_text(
        shipped_policy() + NO + "when { context.hour == 1 };\n"
    )
    await reload_policy(stand.bench.broker)
    stand.bench.clock.advance(59 * 60)
    asking = paying(stand, token)
    stepup = await stand.pending()
    stand.bench.clock.advance(61)
    await stand.approve(stepup.id)
    reply = await asking
    assert (reply.status_code, reply.json()["reason"]) == (403, "policy_forbids")
    assert stand.upstream.received == []


async def test_a_retry_names_a_held_call_and_no_other_approval(
    stand: Stand, agent: Agent, token: str
) -> None:
    """That of a token, or of an answer to a hook, is neither used nor spent by it."""
    broker = stand.bench.broker
    action = Action(("send:payment",), "send:payment", "stripe:acct_1", PAY)
    asked = await request_token(
        broker, agent, action, resource=None, details=None, backchannel=True
    )
    assert isinstance(asked, Escalated)
    hook = await evaluate(broker, agent, action, call='{"tool": "pay"}')
    assert isinstance(hook, Escalated)
    for one in (asked, hook):
        await stand.approve(one.stepup.id)
        reply = await again(stand, token, one.stepup.id)
        assert reply.json()["reason"] == "unknown_request"
        assert broker.registry.elevated(one.stepup.id) is not None
    assert isinstance(await poll(broker, agent, asked.stepup.id), Granted)


# What changed between the decision and its record


async def stricter(stand: Stand) -> None:
    stand.bench.home.policy_file.write_text(f"{shipped_policy()}{NO};")
    await reload_policy(stand.bench.broker)


async def otherwise(stand: Stand) -> None:
    stand.bench.home.policy_file.write_text(shipped_policy() + "// the same\n")
    await reload_policy(stand.bench.broker)


async def revoked(stand: Stand) -> None:
    (agent,) = stand.bench.broker.registry.agents()
    await revoke_agent(stand.bench.broker, agent.id, "", OPERATOR)


async def stopped(stand: Stand) -> None:
    await panic(stand.bench.broker, "", OPERATOR)


async def ungranted(stand: Stand) -> None:
    broker, gone = stand.bench.broker, frozenset({"read:calendar"})
    (agent,) = broker.registry.agents()
    await change_scopes(broker, agent.id, frozenset(), gone, OPERATOR)


async def edited(stand: Stand) -> None:
    await stand.service(BEARER + ROUTES)


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (revoked, (401, "agent_revoked")),
        (stopped, (401, "panic")),
        (ungranted, (403, "scope_not_granted")),
        (edited, (403, "service_changed")),
        (stricter, (403, "policy_changed")),
        (otherwise, (200, None)),
    ],
)
async def test_a_decision_that_does_not_hold_any_more_lets_nothing_out(
    stand: Stand,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Stand], Awaitable[None]],
    answer: tuple[int, str | None],
) -> None:
    """It is refused on the record, before there is an attempt."""
    begin = stand.gateway.calls.begin

    async def late(call: Call, permit: Permit) -> None:
        await change(stand)
        await begin(call, permit)

    monkeypatch.setattr(stand.gateway.calls, "begin", late)
    reply = await stand.client.get("/gw/api/events/e1", headers=bearer(token))
    status, reason = answer
    assert reply.status_code == status
    if reason is None:
        return
    assert reply.json()["reason"] == reason
    assert await stand.records() == [("refused", reason)]
    assert stand.upstream.received == []


def first_another(
    stand: Stand, patch: pytest.MonkeyPatch, another: Callable[[], Awaitable[Response]]
) -> None:
    """Have *another* call go out between the next one's decision and its record."""
    begin = stand.gateway.calls.begin

    async def late(call: Call, permit: Permit) -> None:
        patch.setattr(stand.gateway.calls, "begin", begin)
        assert (await another()).status_code == 200
        await begin(call, permit)

    patch.setattr(stand.gateway.calls, "begin", late)


async def test_a_persons_yes_is_counted_when_its_call_goes_out(
    stand: Stand, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two approved calls no more are sent than a limit allows by then."""
    stand.bench.home.limits_file.write_text(
        '[[limits]]\nid = "pays"\nscopes = ["send:payment"]\nper = "all"\n'
        'within = "60s"\ncount = 1\nover = "deny"\n'
    )
    await reload_policy(stand.bench.broker)
    pays = [{**PAY, "amount": n} for n in (1, 2)]
    one, two = [(await held(stand, token, json=pay))["auth_req_id"] for pay in pays]
    for asked in (one, two):
        await stand.approve(asked)
    first_another(*(stand, monkeypatch), lambda: again(stand, token, two, json=pays[1]))
    reply = await again(stand, token, one, json=pays[0])
    assert (reply.status_code, reply.json()["reason"]) == (403, "limit_reached")
    assert len(stand.upstream.received) == 1


async def test_what_is_good_for_one_call_is_spent_by_the_first(
    stand: Stand, agent: Agent, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An approval and a token, also where both calls were decided before either."""
    one = (await held(stand, token))["auth_req_id"]
    await stand.approve(one)
    first_another(stand, monkeypatch, lambda: again(stand, token, one))
    reply = await again(stand, token, one)
    assert (reply.status_code, reply.json()["error"]) == (403, "already_used")
    shown = bearer(await mail_token(stand, agent))

    def send() -> Awaitable[Response]:
        return stand.client.post("/gw/api/mails?to=a@x.test", headers=shown)

    first_another(stand, monkeypatch, send)
    reply = await send()
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_token")
    assert len(stand.upstream.received) == 2


async def test_a_held_call_that_an_operator_cuts_is_answered_so(
    stand: Stand, token: str
) -> None:
    """Its step-up waits on, for a retry; the record names the operator."""
    asking, stepup, call = await waiting(stand, token)
    stand.gateway.calls.cut_one(call.id, OPERATOR)
    reply = await asking
    assert (reply.status_code, reply.json()["reason"]) == (403, "call_cut")
    denied = (await stand.bench.events())[-1]
    assert (denied.reason, denied.detail["cut_by"]["id"]) == ("call_cut", OPERATOR.id)
    await stand.approve(stepup.id)
    assert (await again(stand, token, stepup.id)).status_code == 200


async def test_a_token_whose_parent_ends_while_a_body_arrives_opens_nothing(
    stand: Stand, agent: Agent
) -> None:
    """What was passed on lives no longer than what it was exchanged for."""
    broker, gate = stand.bench.broker, asyncio.Event()
    first = await stand.agent("write:calendar", name="first")
    scopes = frozenset({"write:calendar"})
    await change_delegates(broker, first.id, agent.id, scopes, OPERATOR)
    mine = await issue_for(broker, first, tuple(scopes), None, OPERATOR)
    action = Action(tuple(scopes), "write:calendar", None)
    given = await pass_on(
        broker, first, mine.token, agent, action, resource=None, details=None
    )
    assert isinstance(given, Granted)

    async def body() -> AsyncIterator[bytes]:
        yield b'{"n": '
        await gate.wait()
        yield b"1}"

    shown = bearer(given.access_token, **{"content-type": "application/json"})
    stand.bench.clock.advance(1)
    asking = asyncio.create_task(
        stand.client.post("/gw/api/notes", headers=shown, content=body())
    )
    await stand.bench.until(
        lambda: broker.registry.last_seen(agent.id) == broker.clock.now()
    )
    await revoke_token(broker, first, mine.access_token)
    gate.set()
    reply = await asking
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_token")
    assert stand.upstream.received == []


async def test_an_approval_that_its_digest_does_not_cover_sends_nothing(
    stand: Stand, agent: Agent, token: str
) -> None:
    """A step-up that is changed after a person saw it is not what was approved."""
    stepups = stand.bench.broker.stepups

    def change(stepup_id: str) -> None:
        stepups.put(replace(stepups.get(stepup_id), nonce="another"))

    one = (await held(stand, token))["auth_req_id"]
    await stand.approve(one)
    change(one)
    reply = await again(stand, token, one)
    assert (reply.status_code, reply.json()["error"]) == (403, "already_used")
    elevated = await stand.elevated(agent, "stripe:acct_1", PAY)
    (two,) = {stepup.id for stepup in stepups.decided()} - {one}
    change(two)
    reply = await stand.client.post(
        "/gw/api/transfers/acct_1", headers=bearer(elevated), json=PAY
    )
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_token")
    assert stand.upstream.received == []
    ended = await stand.bench.events("token.revoked")
    assert {event.reason for event in ended} == {"it is not what was approved"}


@pytest.mark.parametrize(
    ("header", "same"),
    [
        *[("traceparent", True), ("x-request-id", True), ("user-agent", True)],
        *[("x-custom", True), ("accept-language", False), ("if-match", False)],
        *[("idempotency-key", False), ("accept", False)],
    ],
)
async def test_a_retry_may_change_what_differs_between_two_tries_alone(
    stand: Stand, token: str, header: str, *, same: bool
) -> None:
    """Each header that leaves is part of what a person approved, but trace context."""
    one = (await held(stand, token, headers={header: "1"}))["auth_req_id"]
    await stand.approve(one)
    shown = bearer(token, **{"AgentVault-Request": one, header: "2"})
    reply = await stand.client.post(
        "/gw/api/transfers/acct_1?memo=x", headers=shown, json=PAY
    )
    if same:
        assert reply.status_code == 200
    else:
        assert reply.json()["error"] == "digest_mismatch"


TWINS = """
[[routes]]
method = "{method}"
path = "/runs/{{id}}/pay"
scope = "send:payment"
resource = "stripe:{{id}}"
[routes.parameters]
amount = "body:/amount"
"""
CANCEL = """
[[routes]]
method = "POST"
path = "/runs/{id}/cancel"
scope = "send:payment"
resource = "stripe:{id}"
[routes.parameters]
note = "body:/note"
amount = "query:amount"
"""


@pytest.mark.parametrize(
    ("method", "more", "other", "reason"),
    [
        ("POST", "", "", None),
        ("*", "", "", "ask_at_the_gateway"),
        ("POST", CANCEL, "", "ask_at_the_gateway"),
        ("POST", CANCEL.replace("POST", "PUT"), "", "ask_at_the_gateway"),
        ("POST", CANCEL.replace("stripe:{id}", "stripe:{id}/end"), "", None),
        ("POST", CANCEL.replace("query:amount", "path:id"), "", "ask_at_the_gateway"),
        ("POST", CANCEL + 'id = "path:id"\n', "", None),
        ("POST", CANCEL + "count = 1\n", "", None),
        ("POST", "", CANCEL, "ask_at_the_gateway"),
        ("POST", "", 'unmatched = "send:payment"\n', None),
    ],
)
async def test_an_elevated_token_opens_a_route_that_its_action_tells_apart(
    stand: Stand, method: str, more: str, other: str, reason: str | None
) -> None:
    """Who approved "pay, stripe:7" did not approve to cancel 7, at whatever service."""
    await stand.secret()
    text = BEARER + TWINS.format(method=method) + more
    await stand.service(text)
    if other:
        await stand.service(other, "other")
    agent = await stand.agent("send:payment")
    body = {"amount": 5}
    for _ in range(2):
        token = await stand.elevated(agent, "stripe:7", body)
        path = "/gw/api/runs/7/pay"
        reply = await stand.client.post(path, headers=bearer(token), json=body)
        assert reply.status_code == (403 if reason else 200), reply.text
        assert reply.json()["reason"] == reason if reason else True
    assert len(stand.upstream.received) == (0 if reason else 2)


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/transfers/a", "application/merge-patch+json", b'{"amount":5}'),
        ("/transfers/a", "multipart/form-data; boundary=x", b""),
        ("/transfers/a?x=1", "application/json", b'{"amount":5}'),
        ("/transfers/a", "application/json", b'{"amount":5,"note":{}}'),
        ("/transfers/a", "application/json", b'{"amount":5,"":[]}'),
        ("/transfers/a", "application/x-www-form-urlencoded", b"amount=5&amount=5"),
        ("/transfers/e%CC%81", "application/json", b'{"amount":5}'),
    ],
)
async def test_what_an_action_does_not_state_is_asked_at_the_gateway(
    stand: Stand, agent: Agent, path: str, kind: str, body: bytes
) -> None:
    """Another type, member, repetition or spelling was not seen by the approver."""
    if "multipart" in kind:
        await stand.service(
            BEARER + ROUTES.replace('headers = ["Prefer"]', 'body = "multipart"')
        )
        part = b'--x\r\nContent-Disposition: form-data; name="amount"\r\n\r\n5\r\n'
        body = part + b"--x--\r\n"
    if "+json" in kind:
        types = f'types = ["{kind}"]'
        listed = f'headers = ["Prefer"]\n{types}'
        await stand.service(BEARER + ROUTES.replace('headers = ["Prefer"]', listed))
    resource = "stripe:\u00e9" if "%" in path else "stripe:a"
    token = await stand.elevated(agent, resource, {"amount": 5})
    headers = bearer(token, **{"Content-Type": kind})
    reply = await stand.client.post(f"/gw/api{path}", headers=headers, content=body)
    assert (reply.status_code, reply.json()["reason"]) == (403, "ask_at_the_gateway")
    assert stand.upstream.received == []
    plain = path.partition("?")[0].replace("e%CC%81", "%C3%A9")
    if "multipart" not in kind:  # nothing was spent
        reply = await stand.client.post(
            f"/gw/api{plain}", headers=bearer(token), json={"amount": 5}
        )
        assert reply.status_code == 200, reply.text


async def test_a_resource_of_two_captures_tells_them_apart(stand: Stand) -> None:
    """Who approved "stripe:x-y-z" did not say where the first capture ends."""
    await stand.secret()
    await stand.service(
        f'{BEARER}[[routes]]\nmethod = "POST"\npath = "/{{a}}/to/{{b}}"\n'
        'scope = "send:payment"\nresource = "stripe:{a}-{b}"\n'
    )
    agent = await stand.agent("send:payment")
    for path, status in (("x/to/y-z", 200), ("x-y/to/z", 403)):
        token = await stand.elevated(agent, "stripe:x-y-z", {})
        reply = await stand.client.post(f"/gw/api/{path}", headers=bearer(token))
        assert reply.status_code == status, reply.text


async def test_beyond_its_rate_a_call_waits_a_second(stand: Stand, token: str) -> None:
    """429 with a second to wait; no record, no lock-out, and no byte upstream."""
    broker = stand.bench.broker
    await change_rate(broker, broker.registry.agents()[0].id, 1, OPERATOR)
    url = "/gw/api/events/a"
    # The token that it has was a permitted decision before its rate was set.
    answers = [await stand.client.get(url, headers=bearer(token)) for _ in range(10)]
    assert {one.status_code for one in answers} == {200}
    before = len(await stand.records())
    refused = await stand.client.get(url, headers=bearer(token))
    assert (refused.status_code, refused.json()["error"]) == (429, "slow_down")
    assert refused.headers["retry-after"] == "1"
    assert len(await stand.records()) == before
    assert len(stand.upstream.received) == 10
    stand.bench.clock.advance(1)
    assert (await stand.client.get(url, headers=bearer(token))).status_code == 200
