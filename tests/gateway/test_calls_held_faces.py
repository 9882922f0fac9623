"""The body of a held call: the same on each face that shows the request."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from auth0_double.running import START, TenantThread
from support.call_kit import BEARER, ROUTES, bearer, held
from support.gateway_stand import Stand, answers, operators_http
from support.phone import Phone, public_address
from support.stepups import start

from agentvault_tui import json_document
from agentvault_tui.broker.answers import Escalated
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.stepups import with_repeat
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.stepup import offer
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.stepup import print_stepup
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import ConflictError, SealedError
from agentvault_tui.gateway.body import HeldBodies
from agentvault_tui.home import Home
from agentvault_tui.model import Action, EventType, StepUp
from agentvault_tui.model.waiting import UNSEEN_PARTS
from agentvault_tui.operator_api.codec import decode
from agentvault_tui.operator_api.gateway import HeldBody
from agentvault_tui.operator_api.stepups import HeldRequestInfo, StepUpInfo
from agentvault_tui.presenters.body import body_view
from agentvault_tui.presenters.intake import Intake

BOUNDARY = "agentvault-0123456789abcdef"
LOOKS_PLAIN = b'{"amount":1}'
FILE = b"%PDF\xff\x00"
PARTS = (
    b"--%(b)s\r\n"
    b'Content-Disposition: form-data; name="to"\r\n\r\n<b>acct_9</b>\r\n'
    b"--%(b)s\r\n"
    b'Content-Disposition: form-data; name="scan"; filename="a.pdf"\r\n'
    b"Content-Type: application/pdf\r\n\r\n%(file)s\r\n"
    b"--%(b)s--\r\n"
) % {b"b": BOUNDARY.encode(), b"file": FILE}


class Case(NamedTuple):
    """A body, what the API says it is, and the members that people see."""

    kind: str
    media_type: str | None
    body: bytes
    content: str
    members: list[tuple[str, str]]


CASES = [
    Case("none", None, b"", '{"kind":"none"}', []),
    Case(
        "json",
        "application/json",
        b'{"memo":"<b>\\u001b\xe2\x80\xae","amount":1.50,"to":["a","b"]}',
        '{"kind":"json","value":{"memo":"<b>\\u001b\\u202e","amount":1.50,'
        '"to":["a","b"]}}',
        [
            ("/amount", "1.50"),
            ("/to/0", '"a"'),
            ("/to/1", '"b"'),
            ("/memo", '"<b>\\u001b⟦U+202E⟧"'),
        ],
    ),
    Case(
        "form",
        "application/x-www-form-urlencoded",
        b"%7B%22amount%22%3A1%7D=&amount=1&amount=2",
        '{"kind":"form","pairs":[["{\\"amount\\":1}",""],["amount","1"],'
        '["amount","2"]]}',
        [('"{\\"amount\\":1}"', '""'), ("amount", '"1"'), ("amount", '"2"')],
    ),
    Case(
        "multipart",
        f"multipart/form-data; boundary={BOUNDARY}",
        PARTS,
        '{"kind":"multipart","parts":[{"name":"to","value":"<b>acct_9</b>"},'
        '{"name":"scan","filename":"a.pdf","type":"application/pdf","bytes":6,'
        f'"sha256":"{sha256(FILE).hexdigest()}"}}]}}',
        [
            ("to", '"<b>acct_9</b>"'),
            ("scan", 'file "a.pdf", application/pdf, 6 bytes'),
            ("its SHA-256", sha256(FILE).hexdigest()),
        ],
    ),
    Case(
        "opaque",
        "image/png",
        LOOKS_PLAIN,
        '{"kind":"opaque","type":"image/png","bytes":12,"sha256":'
        f'"{sha256(LOOKS_PLAIN).hexdigest()}"}}',
        [],
    ),
]


def with_pages(stand: Stand) -> Broker:
    """Have the tenant show an approval page of each step-up."""
    broker = stand.bench.broker
    tenant = replace(broker.settings.tenant, url="https://ops.example/")
    broker.settings = replace(broker.settings, tenant=tenant)
    return broker


async def transfer(stand: Stand, text: str = "", **more: Any) -> StepUp:
    """Have a transfer of 4200 USD held at a service with that *text* in its file."""
    await stand.secret()
    await stand.service(BEARER + text + ROUTES)
    broker = with_pages(stand)
    agent = await stand.agent("read:calendar", "send:payment")
    token = await stand.token(agent, "read:calendar")
    return broker.stepups.get((await held(stand, token, **more))["auth_req_id"])


async def hold(stand: Stand, case: Case) -> StepUp:
    """Have a call held, with that body in memory."""
    stepup, broker = await transfer(stand), stand.bench.broker
    assert stepup.request is not None
    request = stepup.request | {
        "body_kind": case.kind,
        "body_type": case.media_type,
        "body_bytes": len(case.body),
        "body_sha256": sha256(case.body).hexdigest(),
    }
    changed = with_repeat(replace(stepup, request_json=to_json(request)), None)
    broker.stepups.put(changed)
    stand.gateway.calls.bodies = HeldBodies()
    stand.gateway.calls.bodies.keep(stepup.agent_id, stepup.id, case.body)
    return changed


async def page_text(folder: Path, details: dict[str, Any]) -> str:
    """Return the approval page of the request that the tenant got, as alice sees it."""
    return await asyncio.to_thread(_page_text, folder, details)


def _page_text(folder: Path, details: dict[str, Any]) -> str:
    home = Home.locate(folder / "tenant")
    home.prepare()
    public = public_address(home, START)
    tenant = TenantThread(home, public=public)
    phone = Phone(home, public.url)
    try:
        tenant.flow(details)
        alice = tenant.users.add("alice@acme.test", approver=True)
        phone.open(f"approve/{details['page']['id']}")
        phone.send("sign-in", user=alice.user.name, password=alice.password)
        return phone.answer.text
    finally:
        phone.http.close()
        tenant.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
async def test_each_face_shows_the_same_members(
    stand: Stand, short: Path, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """API, console, command line and phone page read one body alike, and keep digits.

    A form is never shown as JSON, and opaque content is said before all else.
    """
    stepup = await hold(stand, case)
    answer = await stand.bench.read(f"/api/agents/stepup/{stepup.id}")
    found: Any = json_document.read_document(answer.content)
    content = json_document.encode_document(found["request"]["body"])
    assert content == json_document.encode_document(
        json_document.read_document(case.content.encode())
    )
    # Console and command line read the bytes.
    item = decode(answer.content, StepUpInfo)
    raw = (await stand.bench.read(f"/api/agents/stepup/{stepup.id}/body")).content
    assert base64.b64decode(json.loads(raw)["base64"]) == case.body
    sent = decode(raw, HeldBody)
    row = Intake().stepup(item)
    assert row.request is not None
    assert list(body_view(row.request, sent).members) == case.members
    print_stepup(Output(), item, (), "olga", sent)
    printed = capsys.readouterr().out
    lines = [line.strip() for line in printed.splitlines()]
    listed = "".join(lines)
    for name, value in case.members:
        assert f"{name} = {value}".replace(" ", "") in listed.replace(" ", "")
    assert ("/amount" in printed) == (case.kind == "json")
    await start(stand.bench, stepup)
    details = stand.bench.tenant.shown[-1][0]

    text = await page_text(short, details)
    shown = re.findall(
        r'<bdi data-body="name">(.*?)</bdi></th><td><bdi data-body="text">(.*?)</bdi>',
        text,
    )
    assert [(html.unescape(n), html.unescape(v)) for n, v in shown] == case.members
    assert "<b>" not in text
    warning = "AgentVault cannot read this content"
    if case.kind == "opaque":
        assert lines[0].startswith(warning)
        main = text[text.index("<main") :]
        first = main.index("<p ")
        assert main[first:].startswith('<p class="problem"><bdi data-field="warning">')
        assert warning in main[first : first + 120]
    else:
        assert warning not in printed + text


async def test_lists_events_and_alerts_have_no_body(stand: Stand) -> None:
    """Where many are listed there is its SHA-256 and size."""
    stepup = await hold(stand, CASES[1])
    (listed,) = (await stand.bench.read("/api/agents/stepup")).json()["stepups"]
    assert "body" not in listed["request"]
    assert listed["request"]["body_sha256"] == sha256(CASES[1].body).hexdigest()
    brief = await stand.bench.read(f"/api/agents/stepup/{stepup.id}?body=false")
    assert "body" not in brief.json()["request"]
    for event in await stand.bench.events():
        assert "amount" not in json.dumps(event.detail.get("request", {}))


async def test_every_member_of_a_held_request_reaches_operators(stand: Stand) -> None:
    """A member that the gateway writes and the shape lacks would be hidden."""
    stepup = await hold(stand, CASES[1])
    assert stepup.request is not None
    assert stepup.request.keys() <= set(HeldRequestInfo.__struct_fields__)


async def test_a_lost_body_can_only_be_denied(stand: Stand, short: Path) -> None:
    """After a restart each face says so, and no way to approve is open."""
    stepup = await hold(stand, CASES[1])
    broker = stand.bench.broker
    stand.gateway.calls.bodies = HeldBodies()
    answer = await stand.bench.read(f"/api/agents/stepup/{stepup.id}")
    assert answer.json()["request"]["body"] == {"kind": "lost"}
    async with operators_http(stand.bench) as http:
        asked = {"id": stepup.id, "decision": "approve", "digest": stepup.digest}
        refused = await http.post("/api/agents/stepup", json=asked)
        assert refused.status_code == 409
        assert "the body of this call is lost" in refused.text
        assert f"agentvault stepup deny {stepup.id}" in refused.text
        text = await page_text(short, await _page_details(stand, stepup))
        assert 'data-field="lost"' in text
        assert "can only be denied" in text
        assert 'id="factors"' not in text
        assert 'id="repeat"' not in text
        assert 'id="deny"' in text
        denied = await http.post(
            "/api/agents/stepup", json={"id": stepup.id, "decision": "deny"}
        )
        assert denied.json()["status"] == "denied"
    assert broker.stepups.get(stepup.id).status.value == "denied"


async def _page_details(stand: Stand, stepup: StepUp) -> dict[str, Any]:
    """Have the broker offer the page of a step-up, and return what it says there."""
    await offer(stand.bench.broker, stepup)
    shown: dict[str, Any] = stand.bench.tenant.shown[-1][0]
    return shown


async def test_a_body_that_is_lost_while_a_person_approves_is_not_approved(
    stand: Stand,
) -> None:
    """A second factor for a call with a lost body does not approve it."""
    stepup = await hold(stand, CASES[1])
    broker = stand.bench.broker
    await start(stand.bench, stepup)
    stand.gateway.calls.bodies = HeldBodies()
    stand.bench.tenant.approve()
    await stand.bench.until(
        lambda: broker.stepups.get(stepup.id).status.value == "pending"
    )
    assert "is lost" in (broker.stepups.get(stepup.id).problem or "")
    assert not await stand.bench.events(EventType.STEPUP_APPROVED)


async def test_a_lost_body_that_is_sent_again_can_be_approved(stand: Stand) -> None:
    """The agent's retry is the same call, and brings its bytes back."""
    stepup = await hold(stand, CASES[1])
    stand.gateway.calls.bodies = HeldBodies()
    with pytest.raises(ConflictError):
        await start(stand.bench, stepup)
    stand.gateway.calls.bodies.keep(stepup.agent_id, stepup.id, CASES[1].body)
    begun = await start(stand.bench, stepup)
    assert begun.status.value == "authorizing"


async def test_bytes_that_the_digest_does_not_cover_are_lost(stand: Stand) -> None:
    """A call with other bytes in memory cannot be approved."""
    stepup = await hold(stand, CASES[1])
    stand.gateway.calls.bodies = HeldBodies()
    stand.gateway.calls.bodies.keep(stepup.agent_id, stepup.id, b'{"amount":9000}')
    answer = await stand.bench.read(f"/api/agents/stepup/{stepup.id}")
    assert answer.json()["request"]["body"] == {"kind": "lost"}
    with pytest.raises(ConflictError):
        await start(stand.bench, stepup)


async def test_a_body_at_a_broker_that_cannot_be_asked_is_absent(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not reported as lost, because another broker may have it."""
    stepup = await hold(stand, CASES[1])

    async def sealed(_: str) -> bytes:
        raise SealedError("the team's key is missing")

    monkeypatch.setattr(stand.gateway, "held_body", sealed)
    answer = await stand.bench.read(f"/api/agents/stepup/{stepup.id}")
    assert answer.status_code == 200
    assert "body" not in answer.json()["request"]
    details = await _page_details(stand, stepup)
    assert details["page"]["body"] is None


async def test_a_large_body_is_not_listed_on_the_approval_page(stand: Stand) -> None:
    """It says so; what is large and opaque says what it is all the same."""
    body = b'{"amount":1,"memo":"%s"}' % (b"x" * 70_000)
    case = Case("json", "application/json", body, "", [])
    page = (await _page_details(stand, await hold(stand, case)))["page"]["body"]
    assert page["too_large"]
    assert page["members"] == ()
    assert page["summary"] == f"json, {len(body):,} bytes"


BOUND = """
[[routes]]
method = "POST"
path = "/drafts/send"
scope = "send:payment"
binds = [{ get = "/drafts/{id}", id = "body:/id" }]
"""


@pytest.mark.parametrize(
    ("document", "members", "summary"),
    [
        (b'{"to":"eve","n":1.50}', [("/to", '"eve"'), ("/n", "1.50")], "JSON"),
        (b'{"a":{"to":"eve"}}', [("/a/to", '"eve"')], "JSON"),
        (b"\xff\x00", [], "opaque"),
    ],
    ids=["json", "nested", "opaque"],
)
async def test_each_face_shows_the_documents_that_a_call_names(
    stand: Stand,
    short: Path,
    document: bytes,
    members: list[tuple[str, str]],
    summary: str,
) -> None:
    """What is sent is another document than the body: a person reads both."""
    await stand.secret()
    await stand.service(BEARER + BOUND)
    with_pages(stand)
    agent = await stand.agent("send:payment", "read:files")
    token = await stand.token(agent, "read:files")
    stand.upstream.answer = answers(b"200 OK", document)
    reply = await stand.client.post(
        "/gw/api/drafts/send",
        headers=bearer(token, Prefer="respond-async"),
        json={"id": "d1"},
    )
    stepup = stand.bench.broker.stepups.get(reply.json()["auth_req_id"])
    url = f"http://127.0.0.1:{stand.upstream.port}/drafts/d1"
    found = await stand.bench.read(f"/api/agents/stepup/{stepup.id}")
    (reference,) = found.json()["request"]["references"]
    assert reference["url"] == url
    assert reference["sha256"] == sha256(document).hexdigest()
    assert reference["content"]["kind"] == ("json" if members else "opaque")
    raw = await stand.bench.read(f"/api/agents/stepup/{stepup.id}/body")
    row = Intake().stepup(decode(found.content, StepUpInfo))
    assert row.request is not None
    view = body_view(row.request, decode(raw.content, HeldBody))
    (first, shown), *others = view.members
    assert (first, shown.partition(" (")[0]) == ("The document", url)
    assert f"({summary}, " in shown
    named = [(f"The document {name}", value) for name, value in members]
    assert others == [*named, ("/id", '"d1"')]
    assert ("cannot read this content" in view.problem) == (not members)
    details = await _page_details(stand, stepup)

    text = html.unescape(await page_text(short, details))
    assert url in text
    assert all(value in text for _, value in members)
    stand.gateway.calls.bodies._bodies.pop(f"{stepup.id}/0")
    with pytest.raises(ConflictError):
        await start(stand.bench, stepup)


async def test_each_face_says_what_an_approved_token_leaves_unseen(
    stand: Stand, short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token that is asked for by itself says nothing of the request's content."""
    agent = await stand.agent("send:payment")
    broker = with_pages(stand)
    asked = await request_token(
        broker,
        agent,
        Action(("send:payment",), "send:payment", "stripe:a", {"amount": 1}),
        resource=None,
        details=None,
    )
    assert isinstance(asked, Escalated)
    answer = await stand.bench.read(f"/api/agents/stepup/{asked.stepup.id}")
    print_stepup(Output(), decode(answer.content, StepUpInfo), (), "olga")
    printed = "".join(capsys.readouterr().out.split())
    assert UNSEEN_PARTS.replace(" ", "") in printed
    details = await _page_details(stand, asked.stepup)

    assert UNSEEN_PARTS in await page_text(short, details)
