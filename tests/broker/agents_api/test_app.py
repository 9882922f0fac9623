"""The token endpoint: what is asked, what is answered, in whose words."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from support.agents_http import DETAIL, Caller, Live
from support.bench import OPERATOR, Bench

from agentvault_tui.broker.shapes import stepup_info
from agentvault_tui.broker.usecases.revoke import panic, revoke_agent
from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerUnwritableError,
    OutcomeUnknownError,
)


def refusal(answer: httpx.Response, status: int, error: str) -> dict[str, Any]:
    """Check an error answer and return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert body["error"] == error, body
    said = body["error_description"]
    assert all(" " <= c <= "~" and c not in '"\\' for c in said), said
    return body


async def test_an_allowed_request_gets_a_bearer_token(
    caller: Caller, bench: Bench
) -> None:
    """200 with exactly the documented members, and the decision in the ledger."""
    answer = await caller.token("write:calendar read:calendar write:calendar")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "decision_id",
    }
    assert body["access_token"].startswith("av_t_")
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
    assert body["scope"] == "write:calendar read:calendar"
    (event,) = await bench.events("token.decision")
    assert event.decision_id == body["decision_id"]


@pytest.mark.parametrize("as_json", [False, True])
async def test_details_are_echoed_as_sent(caller: Caller, as_json: bool) -> None:
    """Form and JSON carry the same action, and the token is bound to it."""
    details = [{**DETAIL, "action": "write:calendar"}]
    form = {"grant_type": "client_credentials", "scope": "write:calendar"}
    if as_json:
        answer = await caller.http.post(
            "/oauth/token",
            json={**form, "authorization_details": details, "organization": None},
            auth=(caller.agent.client_id, caller.secret),
        )
    else:
        answer = await caller.token(authorization_details=json.dumps(details))
    assert answer.status_code == 200, answer.text
    assert answer.json()["authorization_details"] == details
    told = await caller.introspect(answer.json()["access_token"])
    assert told["authorization_details"] == details


async def test_a_denied_request_says_why(caller: Caller) -> None:
    """403 with a stable code, a sentence and the decision."""
    body = refusal(await caller.token("delete:records"), 403, "access_denied")
    assert body["reason"] == "scope_not_granted"
    assert body["decision_id"].startswith("dec_")
    assert "delete:records" in body["error_description"]


async def test_an_escalated_request_names_what_to_poll(caller: Caller) -> None:
    """403 that a CIBA client can go on with (RFC 9470's word for it)."""
    body = refusal(await caller.payment(), 403, "insufficient_user_authentication")
    assert body["auth_req_id"].startswith("sup_")
    assert (body["expires_in"], body["interval"]) == (300, 2)
    assert body["decision_id"].startswith("dec_")


async def test_the_action_reaches_the_person_as_sent(
    caller: Caller, bench: Bench
) -> None:
    """Every field of the one object is in the step-up, and nothing else is."""
    body = (await caller.payment()).json()
    stepup = bench.broker.stepups.get(body["auth_req_id"])
    assert stepup.action == DETAIL["action"]
    assert stepup.resource == DETAIL["resource"]
    assert stepup.parameters == DETAIL["parameters"]
    assert stepup.reason == DETAIL["reason"]


async def test_a_revoked_agent_authenticates_and_is_told(
    caller: Caller, bench: Bench
) -> None:
    """Revoked is a denial with its own code, and so is a panic."""
    await revoke_agent(bench.broker, caller.agent.id, "test", OPERATOR)
    body = refusal(await caller.token(), 403, "access_denied")
    assert body["reason"] == "agent_revoked"
    await panic(bench.broker, "test", OPERATOR)
    assert (await caller.token()).json()["reason"] == "panic"


NO_SUCH_SCOPE = [
    ("", "missing"),
    ("wirte:calendar", "did you mean write:calendar"),
    ("calendar.write", "write:calendar"),
    ("write:calendar  read:calendar", "single spaces"),
    (" write:calendar", "single spaces"),
    ("write:calendar\tread:calendar", "single spaces"),
    ('write:"calendar"', "printable ASCII"),
    ("kalender:schreiben\u202e", "printable ASCII"),
    ("openid", "unknown scope openid"),
    (" ".join(f"a{i}:b" for i in range(65)), "at most 64"),
]


async def test_a_scope_there_is_not_is_named_with_the_nearest(caller: Caller) -> None:
    """Unknown and malformed scopes never reach policy; the answer helps."""
    for scope, said in NO_SUCH_SCOPE:
        body = refusal(await caller.token(scope), 400, "invalid_scope")
        assert said in body["error_description"]


NOT_ONE_ACTION = [
    "{",
    "{}",
    "[]",
    "[1]",
    "null",
    json.dumps([DETAIL, DETAIL]),
    json.dumps([{**DETAIL, "type": "agentvault:payment"}]),
    json.dumps([{**DETAIL, "type": " AgentVault:Action"}]),
    json.dumps([{**DETAIL, "type": " "}]),
    json.dumps([{"type": f"t{n}"} for n in range(17)]),
    json.dumps([DETAIL, {"type": "payment_initiation", "type\ud800": 1}]),
    json.dumps([{k: v for k, v in DETAIL.items() if k != "type"}]),
    json.dumps([{**DETAIL, "action": "write:calendar"}]),
    json.dumps([{**DETAIL, "action": ["send:payment"]}]),
    json.dumps([{**DETAIL, "resource": 1}]),
    json.dumps([{**DETAIL, "parameters": []}]),
    json.dumps([{**DETAIL, "parameters": "x"}]),
    json.dumps([{**DETAIL, "reason": {}}]),
    json.dumps([{**DETAIL, "locations": ["x"]}]),
    json.dumps([{**DETAIL, "x\u202e\x1b[2J": 1}]),
    '[{"type":"agentvault:action","type":"agentvault:action"}]',
    '[{"type":"agentvault:action","parameters":{"amount":1,"amount":2}}]',
    '[{"type":"agentvault:action","parameters":{"amount":1e999}}]',
    '[{"type":"agentvault:action","parameters":{"amount":NaN}}]',
    json.dumps([{**DETAIL, "parameters": {"a": {"b": {"c": {"d": {}}}}}}]),
    json.dumps([{**DETAIL, "parameters": {f"p{i}": i for i in range(65)}}]),
    json.dumps([{**DETAIL, "parameters": {"a": "\ud800"}}]),
]


async def test_details_that_are_not_one_exact_action_are_refused(
    caller: Caller, bench: Bench
) -> None:
    """RFC 9396 section 5: nothing unknown, nothing misspelt, nothing twice."""
    for details in NOT_ONE_ACTION:
        answer = await caller.token("send:payment", authorization_details=details)
        assert refusal(answer, 400, "invalid_authorization_details")
    assert not bench.broker.stepups.open()


async def test_json_details_over_a_cap_are_refused_in_the_same_word(
    caller: Caller,
) -> None:
    """The word is the parameter's also where the whole body is JSON."""
    answer = await caller.http.post(
        "/oauth/token",
        json={"authorization_details": [{**DETAIL, "reason": "x" * 4001}]},
    )
    assert refusal(answer, 400, "invalid_authorization_details")


BANK = {
    "type": "payment_initiation",
    "locations": ["https://bank.example/payments"],
    "instructedAmount": {"currency": "EUR", "amount": "7777777.00"},
    "creditorAccount": {"iban": "DE02100100109307118603"},
    "nothing": None,
}
SHOWN_BANK = {name: value for name, value in BANK.items() if value is not None}


async def test_details_of_another_type_are_carried_covered_and_served(
    caller: Caller, live: Live, bench: Bench
) -> None:
    """As Auth0's SDKs send them: beside our own object or alone, a person decides."""
    server = await live.caller("api", resource_server=True)
    for number, details in enumerate(([BANK], [DETAIL, BANK])):
        answer = await caller.token(
            "send:payment", authorization_details=json.dumps(details)
        )
        body = refusal(answer, 403, "insufficient_user_authentication")
        stepup = bench.broker.stepups.get(body["auth_req_id"])
        assert stepup.details == (*[DETAIL][:number], SHOWN_BANK)
        told = stepup_info(stepup)
        assert told.authorization_details == stepup.details
        assert told.unlimited is False
        await live.approve(stepup.id)
        granted = (await caller.poll(stepup.id)).json()
        assert granted["authorization_details"] == [*[DETAIL][:number], SHOWN_BANK]
        told = await server.introspect(granted["access_token"])
        assert told["authorization_details"] == granted["authorization_details"]


async def test_policy_alone_answers_for_nothing_it_does_not_read(
    caller: Caller, bench: Bench
) -> None:
    """What policy would allow without other details, a person decides with them."""
    answer = await caller.token(authorization_details=json.dumps([BANK]))
    body = refusal(answer, 403, "insufficient_user_authentication")
    stepup = bench.broker.stepups.get(body["auth_req_id"])
    assert (stepup.rule, stepup.action) == ("unread-details", "write:calendar")
    (event,) = await bench.events("token.decision")
    assert event.detail["other_details"] == [SHOWN_BANK]


@pytest.mark.parametrize("member", ["creditorAccount", "locations", "type"])
async def test_one_member_that_differs_is_another_request(
    caller: Caller, member: str
) -> None:
    """Requests collapse only when all that will be served is the same."""
    first = await caller.token(
        "send:payment", authorization_details=json.dumps([DETAIL, BANK])
    )
    other = json.dumps([DETAIL, {**BANK, member: "another"}])
    second = await caller.token("send:payment", authorization_details=other)
    again = await caller.token("send:payment", authorization_details=other)
    ids = [answer.json()["auth_req_id"] for answer in (first, second, again)]
    assert ids[0] != ids[1] == ids[2]


async def test_the_action_is_served_though_the_request_named_it_elsewhere(
    caller: Caller, live: Live
) -> None:
    """Scope and resource of the request stand in the object a server compares."""
    server = await live.caller("api", resource_server=True)
    sent = [{"type": DETAIL["type"], "parameters": {"count": 1}}]
    answer = await caller.token(
        resource="calendar:primary", authorization_details=json.dumps(sent)
    )
    told = await server.introspect(answer.json()["access_token"])
    assert told["authorization_details"] == [
        {**sent[0], "action": "write:calendar", "resource": "calendar:primary"}
    ]


TWO_SCOPES = "read:calendar send:payment"


async def test_an_approval_gives_the_scope_of_its_action_and_no_other(
    caller: Caller, live: Live, bench: Bench
) -> None:
    """Asked for with others, named or not, the token carries the payment alone."""
    named = json.dumps([DETAIL])
    for details in ({"authorization_details": named}, {}):
        body = (await caller.token(TWO_SCOPES, **details)).json()
        stepup = bench.broker.stepups.get(body["auth_req_id"])
        assert (stepup.action, stepup.scope) == ("send:payment", "send:payment")
        await live.approve(stepup.id)
        assert (await caller.poll(stepup.id)).json()["scope"] == "send:payment"
    first, _ = await bench.events("token.decision")
    assert first.detail["scope"] == "send:payment"
    assert first.detail["asked_scope"] == TWO_SCOPES


async def test_an_action_that_hides_the_one_that_needs_a_person_is_refused(
    caller: Caller, bench: Bench
) -> None:
    """The list would show the calendar, and the token would carry the payment."""
    hidden = json.dumps([{"type": DETAIL["type"], "action": "read:calendar"}])
    answer = await caller.token(TWO_SCOPES, authorization_details=hidden)
    body = refusal(answer, 400, "invalid_scope")
    assert "send:payment" in body["error_description"]
    form = {"scope": TWO_SCOPES, "authorization_details": hidden}
    answer = await caller.post("/bc-authorize", **form)
    assert refusal(answer, 400, "invalid_scope")
    assert not bench.broker.stepups.open()


async def test_several_scopes_that_need_a_person_are_decided_one_by_one(
    live: Live, bench: Bench
) -> None:
    """Without an action nobody can say what the person would decide about."""
    caller = await live.caller("both", "send:payment", "delete:records")
    answer = await caller.token("send:payment delete:records")
    assert refusal(answer, 400, "invalid_scope")
    answer = await caller.post("/bc-authorize", scope="send:payment delete:records")
    assert refusal(answer, 400, "invalid_scope")
    details = json.dumps([{"type": DETAIL["type"], "action": "delete:records"}])
    answer = await caller.token(
        "send:payment delete:records", authorization_details=details
    )
    assert answer.json()["auth_req_id"]
    (stepup,) = bench.broker.stepups.open()
    assert stepup.scope == "delete:records"


async def test_a_backchannel_request_is_for_one_scope(caller: Caller) -> None:
    """Where policy alone would allow each, the agent says which one it wants."""
    both = "read:calendar write:calendar"
    answer = await caller.post("/bc-authorize", scope=f"openid {both}")
    assert refusal(answer, 400, "invalid_scope")
    details = json.dumps([{"type": DETAIL["type"], "action": "read:calendar"}])
    answer = await caller.post(
        "/bc-authorize", scope=both, authorization_details=details
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("wire", ["form", "json", "text in json"])
@pytest.mark.parametrize(
    ("parameters", "fits"),
    [
        ({"recipients": [f"customer-{n}@acme.test" for n in range(500)]}, True),
        ({"subject": "汉" * 650, "note": "字" * 4000}, True),
        ({"subject": "汉" * 4001}, False),
        ({"汉" * 4001: 1}, False),
    ],
    ids=["500 addresses", "Chinese", "a value over the cap", "a name over the cap"],
)
async def test_a_form_holds_the_details_a_json_body_does(
    caller: Caller, wire: str, parameters: dict[str, Any], fits: bool
) -> None:
    """The cap is each member's and the body's, however the details travel."""
    details: Any = [{**DETAIL, "parameters": parameters}]
    # As a form most clients escape what is not ASCII, six characters for each.
    sent = json.dumps(details)
    form = {"grant_type": "client_credentials", "scope": "send:payment"}
    form["authorization_details"] = details if wire == "json" else sent
    answer = await caller.http.post(
        "/oauth/token",
        auth=(caller.agent.client_id, caller.secret),
        **({"data": form} if wire == "form" else {"json": form}),  # type: ignore[arg-type]
    )
    if fits:
        assert refusal(answer, 403, "insufficient_user_authentication")
    else:
        assert refusal(answer, 400, "invalid_authorization_details")


async def test_nulls_in_details_count_as_absent(caller: Caller, bench: Bench) -> None:
    """Clients that write out their unset fields are understood."""
    sent = [{"type": DETAIL["type"], "action": None, "reason": None}]
    answer = await caller.token("send:payment", authorization_details=json.dumps(sent))
    body = refusal(answer, 403, "insufficient_user_authentication")
    stepup = bench.broker.stepups.get(body["auth_req_id"])
    assert (stepup.action, stepup.reason) == ("send:payment", None)


SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"grant_type": "password"}, "unsupported_grant_type"),
    ({"grant_type": ""}, "invalid_request"),
    ({"grant_type": ["client_credentials", "password"]}, "invalid_request"),
    ({"resource": ["a", "b"]}, "invalid_request"),
    ({"resource": "x" * 4001}, "invalid_request"),
    ({"resource": "\0"}, "invalid_request"),
]


async def test_a_request_that_makes_no_sense_is_named(caller: Caller) -> None:
    """Unknown grants, parameters sent twice, and fields over the caps get 400."""
    for form, error in SENSELESS:
        assert refusal(await caller.token(**form), 400, error)


async def test_json_of_the_wrong_type_is_refused(caller: Caller) -> None:
    """A parameter that must be a string is one."""
    form = {"grant_type": "client_credentials", "scope": "write:calendar"}
    basic = (caller.agent.client_id, caller.secret)
    for name in ("grant_type", "scope", "resource"):
        for value in (1, True, ["write:calendar"], {"a": 1}):
            body = {**form, name: value}
            answer = await caller.http.post("/oauth/token", json=body, auth=basic)
            assert refusal(answer, 400, "invalid_request")


async def test_what_an_auth0_client_adds_is_passed_over(caller: Caller) -> None:
    """Nulls, unknown members and a literal audience=None change nothing."""
    answer = await caller.http.post(
        "/oauth/token",
        json={
            "grant_type": "client_credentials",
            "client_id": caller.agent.client_id,
            "client_secret": caller.secret,
            "scope": "write:calendar",
            "audience": "None",
            "organization": None,
            "connection": {"any": ["thing"]},
        },
        headers={
            "Auth0-Client": "eyJ9",
            "Content-Type": "application/json;charset=utf-8",
        },
    )
    assert answer.status_code == 200, answer.text


async def test_statuses_that_are_about_http(live: Live, caller: Caller) -> None:
    """405 names the method, 415 the types, 413 the cap, 404 and 421 themselves."""
    http = live.http
    answer = await http.get("/oauth/token")
    assert refusal(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    answer = await http.post("/healthz")
    assert answer.headers["allow"] == "GET, HEAD"
    assert refusal(answer, 405, "method_not_allowed")
    plain = {"content-type": "text/plain"}
    answer = await http.post("/oauth/token", content="a=1", headers=plain)
    assert refusal(answer, 415, "invalid_request")
    answer = await http.post("/oauth/token", data={"a": "x" * 70_000})
    assert refusal(answer, 413, "request_too_large")
    assert refusal(await http.get("/nothing"), 404, "not_found")
    answer = await http.post("/oauth/token", headers={"host": "evil.example"})
    assert refusal(answer, 421, "misdirected_request")
    answer = await http.post("/oauth/token", headers={"origin": "https://evil.example"})
    assert refusal(answer, 403, "access_denied")


@pytest.mark.parametrize(
    ("error", "seconds"), [(LedgerUnwritableError, "5"), (LedgerBusyError, "1")]
)
async def test_a_request_that_cannot_be_recorded_is_not_answered(
    caller: Caller,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    seconds: str,
) -> None:
    """While the ledger cannot write, agents are told to come back."""

    async def fails(*_: object, **__: object) -> None:
        raise error("no space left", "free some")

    monkeypatch.setattr(bench.ledger, "commit", fails)
    answer = await caller.token()
    assert refusal(answer, 503, "temporarily_unavailable")
    assert answer.headers["retry-after"] == seconds


async def test_an_unknown_outcome_names_its_decision(
    caller: Caller, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was lost while it committed: no success, and what to look up later."""

    async def fails(*_: object, **__: object) -> None:
        raise OutcomeUnknownError("the store was lost", decision_id="dec_7")

    monkeypatch.setattr(bench.ledger, "commit", fails)
    answer = await caller.token()
    assert refusal(answer, 503, "temporarily_unavailable")
    told = answer.json()
    assert (told["reason"], told["decision_id"]) == ("outcome_unknown", "dec_7")
    assert answer.headers["retry-after"] == "5"


async def test_hostile_text_leaves_inert(caller: Caller, live: Live) -> None:
    """What an agent sends comes back to its log without an escape or a quote."""
    nasty = 'a\x1b]0;x\x07"\\\u202e\u200bé\r\nSet-Cookie: a'
    answer = await live.http.post(
        "/oauth/token",
        json={"grant_type": "client_credentials", "scope": f"write:calendar{nasty}"},
        auth=(caller.agent.client_id, caller.secret),
    )
    assert refusal(answer, 400, "invalid_scope")
    details = json.dumps([{**DETAIL, nasty: 1}])
    answer = await caller.token("send:payment", authorization_details=details)
    body = refusal(answer, 400, "invalid_authorization_details")
    assert "[U+001B]" in body["error_description"]


async def test_a_token_is_good_for_the_resource_that_was_decided_about(
    caller: Caller,
) -> None:
    """A resource parameter beside another resource in the details is refused."""
    details = {
        "type": "agentvault:action",
        "action": "write:calendar",
        "resource": "calendar:sandbox",
    }
    form = {
        "resource": "https://bank.example",
        "authorization_details": json.dumps([details]),
    }
    assert refusal(await caller.token(**form), 400, "invalid_target")


async def test_a_resource_is_decided_recorded_and_served_in_one_spelling(
    caller: Caller, bench: Bench
) -> None:
    """Escapes and the case of a scheme are gone from record, token and echo alike."""
    detail = {**DETAIL, "action": "write:calendar", "resource": "CALENDAR:%70rimary"}
    answer = await caller.token(
        resource="Calendar:primary", authorization_details=json.dumps([detail])
    )
    assert answer.status_code == 200, answer.text
    (served,) = answer.json()["authorization_details"]
    assert served["resource"] == "calendar:primary"
    (event,) = await bench.events("token.decision")
    assert event.resource == "calendar:primary"


async def test_a_client_id_of_another_type_is_a_bad_client(live: Live) -> None:
    """JSON gives members any type; a list as client_id beside Basic is no 500."""
    answer = await live.http.post(
        "/oauth/token", json={"client_id": [1]}, auth=("agt_x", "secret")
    )
    assert refusal(answer, 401, "invalid_client")
