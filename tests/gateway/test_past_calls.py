"""What recorded calls say of a service's file: what it lacks, and would refuse."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.call_kit import BEARER, ROUTES, bearer
from support.gateway_stand import Stand

from agentvault_tui.cli.output import Output
from agentvault_tui.cli.services import _print_unlisted
from agentvault_tui.gateway.past_calls import recorded_calls, refused_now
from agentvault_tui.operator_api.codec import decode
from agentvault_tui.operator_api.gateway import ServiceInfo


async def test_what_no_file_lists_is_named_with_the_line_to_add(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    """Headers that were dropped, and headers and types that were refused, in a day."""
    await stand.secret()
    await stand.service(BEARER + ROUTES)
    agent = await stand.agent("read:calendar", "write:calendar", "send:payment")
    auth = bearer(await stand.token(agent, "read:calendar write:calendar"))
    for _ in range(2):
        headers = {**auth, "X-Tenant": "7", "X-Forwarded-For": "::1"}
        await stand.client.get("/gw/api/events/e1", headers=headers)
    for kind, status in (("image/png", 415), ("multipart/form-data; boundary=x", 415)):
        reply = await stand.client.post(
            "/gw/api/transfers/a", content=b"x", headers={**auth, "Content-Type": kind}
        )
        assert reply.status_code == status
    headers = {**auth, "X-Dry-Run": "1"}
    reply = await stand.client.put("/gw/api/upload/x", headers=headers)
    assert reply.json()["reason"] == "header_not_listed"
    await stand.settled()
    answer = await stand.bench.read("/api/services/api")
    info = decode(answer.content, ServiceInfo)
    found = {(one.kind, one.name): one for one in info.unlisted}
    tenant = found["header", "x-tenant"]
    assert (tenant.calls, tenant.refused, tenant.add) == (
        2,
        False,
        'headers = ["X-Tenant"]',
    )
    assert found["header", "x-forwarded-for"].add is None
    dry = found["header", "x-dry-run"]
    assert (dry.refused, dry.add) == (True, 'headers = ["X-Dry-Run"]')
    assert found["type", "image/png"].add == 'body = "opaque", types = ["image/png"]'
    form = found["type", "multipart/form-data; boundary=x"]
    assert (form.refused, form.add) == (True, 'body = "multipart"')
    _print_unlisted(Output(), info)
    assert 'headers = ["X-Tenant"]' in capsys.readouterr().out
    stand.bench.clock.advance(timedelta(days=1, seconds=1).total_seconds())
    answer = await stand.bench.read("/api/services/api")
    assert decode(answer.content, ServiceInfo).unlisted == ()


async def test_calls_that_a_file_would_refuse_now_are_named(stand: Stand) -> None:
    """What the rows do not say is called so, and nothing is guessed."""
    await stand.secret()
    before = BEARER + ROUTES.replace(
        'path = "/events/{id}"', 'path = "/events/{id}"\nbody = "json"'
    )
    await stand.service(before.replace('headers = ["Prefer"]', 'body = "form"'))
    agent = await stand.agent("read:calendar", "write:calendar", "send:payment")
    auth = bearer(await stand.token(agent, "read:calendar write:calendar"))
    path = "/gw/api/events/e1"
    assert (await stand.client.get(path, headers=auth)).status_code == 200
    asks = stand.client.build_request("GET", path, headers=auth, json={"q": 1})
    assert (await stand.client.send(asks)).status_code == 200
    octets = {**auth, "Content-Type": "application/octet-stream"}
    put = await stand.client.put("/gw/api/upload/x", content=b"x", headers=octets)
    assert put.status_code == 200
    await stand.settled()
    after = ROUTES.replace(
        'types = ["application/octet-stream"]',
        'types = ["application/octet-stream"]\nrequires = ["query:v"]',
    )
    await stand.service(BEARER + after)
    service = stand.gateway.services.get("api")
    assert service is not None
    since = stand.bench.clock.now() - timedelta(days=30)
    with stand.bench.reading() as db:
        details = list(recorded_calls(db, "api", since))
        assert len(details) == 3
        assert list(recorded_calls(db, "other", since)) == []
        later = stand.bench.clock.now() + timedelta(days=1)
        assert list(recorded_calls(db, "api", later)) == []
    seen = "; calls in the last 30 days: 1"
    assert sorted(refused_now(service, details)) == [
        "GET /events/{id}: refused now (unexpected_body)" + seen,
        "PUT /upload/{id}: refused now (parameter_required)" + seen,
    ]
    await stand.service(BEARER + ROUTES.replace('"/upload/{id}"', '"/load/{id}"'))
    service = stand.gateway.services.get("api")
    assert service is not None
    assert any("no_route" in one for one in refused_now(service, details))
    needs = ROUTES.replace('headers = ["Prefer"]', 'requires = ["body:/to"]')
    await stand.service(BEARER + needs)
    service = stand.gateway.services.get("api")
    assert service is not None
    told = [{"service": "api", "method": "POST", "path": "/transfers/a"}]
    (note,) = refused_now(service, told)
    assert "now refused unless the request has body:/to" in note


async def test_calls_that_a_case_would_refuse_now_are_named(stand: Stand) -> None:
    """A request without a body is read as the gateway reads it, with its query."""
    route = '[[routes]]\nmethod = "GET"\npath = "/days"\nscope = "read:calendar"\n'
    await stand.service(route)
    agent = await stand.agent("read:calendar")
    auth = bearer(await stand.token(agent, "read:calendar"))
    for query in ("", "?expand[]=all"):
        reply = await stand.client.get(f"/gw/api/days{query}", headers=auth)
        assert reply.status_code == 200
    await stand.settled()
    case = '[[routes.cases]]\nwhen = { "query:expand" = "*" }\nscope = "deny"\n'
    await stand.service(route + case)
    service = stand.gateway.services.get("api")
    assert service is not None
    since = stand.bench.clock.now() - timedelta(days=30)
    with stand.bench.reading() as db:
        notes = refused_now(service, recorded_calls(db, "api", since))
    assert notes == ["GET /days: refused now (no_route); calls in the last 30 days: 1"]
