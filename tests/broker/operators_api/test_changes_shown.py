"""Who approves a change sees all of it, or how much of it is not shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from auth0_double.running import TenantThread
from msgspec.structs import fields
from support.bench import OPERATOR, Bench
from support.elsewhere import Elsewhere, Stand
from support.loosenings import (
    HOOK,
    MILD,
    SERVICE,
    approve,
    opened,
    signed_in,
    waits,
)
from support.manual_clock import ManualClock
from support.phone import Phone, public_address

from agentvault_tui.broker.secret_uses import SecretUse
from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.stepup_end import expire_due
from agentvault_tui.clock import iso
from agentvault_tui.home import Home
from agentvault_tui.model import sha256_hex
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.advice import AdviceEvidence, AdviceInfo, AdvisedChange
from agentvault_tui.operator_api.calls import CALLS, Access
from agentvault_tui.operator_api.files import AgentEntry
from agentvault_tui.policy import shipped_policy
from agentvault_tui.settings import IssuerSettings, Settings, TenantSettings
from agentvault_tui.text import in_full
from agentvault_tui.watch.watch import LedgerWatch
from agentvault_tui.web.local_ca import CaFiles, renew

KEY = f'{{"crv":"Ed25519","kty":"OKP","x":"{"A" * 43}"}}'
OTHER_KEY = KEY.replace("A" * 43, "E" * 43)
SECRET = "sk_live_1"
ANSWERED = {"ungrant", "plan", "strict"}
"""Members that no change has: what they ask for is answered at once, or refused."""
NO_CHANGE = {calls.CONTINUE.path, calls.REMOVE_AGENT.path}
"""The one ends a flow that an approved change began, the other loosens nothing."""


class Page:
    """The approval page of a change, as an approver's browser shows it."""

    def __init__(self, stand: Stand, home: Home) -> None:
        home.prepare()
        now = stand.bench.clock.now()
        self.stand = stand
        self.tenant = TenantThread(home, public=public_address(home, now), now=now)
        self.phone = Phone(home, self.tenant.public.url)  # type: ignore[union-attr]
        self.alice = self.tenant.users.add("alice@acme.test", approver=True)

    async def of(self, approver: Elsewhere, change: dict[str, Any]) -> str:
        """Return the page's text, once the broker has asked for it."""
        asked = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
        begun = await approver.post("/api/changes", **asked)
        assert begun.status_code == 202, begun.text
        (shown,) = self.stand.bench.tenant.shown[-1]
        self.tenant.flow(json.loads(json.dumps(shown)))
        self.phone.forget()
        self.phone.open(f"approve/{change['id']}")
        user = {"user": self.alice.user.name, "password": self.alice.password}
        page = self.phone.send("sign-in", **user)
        assert page.step == "approve", self.phone.answer.text
        return unescape(self.phone.answer.text)

    def close(self) -> None:
        self.phone.http.close()
        self.tenant.close()


@pytest.fixture
async def stand(short: Any, clock: ManualClock) -> AsyncIterator[Stand]:
    """Return a broker whose embedded tenant has approval pages."""
    url = "https://token.actions.githubusercontent.com"
    github = IssuerSettings(url, "agentvault", jwks_uri=f"{url}/jwks")
    tenant = TenantSettings(url="https://ops.example:1/")
    settings = Settings(tenant=tenant, issuers={"github": github})
    bench = await Bench.open(Home.locate(short / "h"), clock, "", settings)
    bench.broker.reaching.kind = "embedded"
    async with opened(bench) as stand:
        yield stand
    await bench.close()


@pytest.fixture
def page(stand: Stand, short: Any) -> Iterator[Page]:
    made = Page(stand, Home.locate(short / "tenant"))
    yield made
    made.close()


async def requests(bench: Bench) -> list[tuple[calls.ApiCall[Any], dict[str, Any]]]:
    """Return requests that use each member of each call that loosens."""
    bench.broker.extensions.secret_uses.append(
        lambda: [SecretUse("sink", "siem", "siem", ())]
    )
    agent, other = await bench.agent("payer"), await bench.agent("other")
    plan = await bench.agent("plan", template=True)
    server = await bench.agent("api", "read:files", resource_server=True)
    until = iso(bench.clock.now() + timedelta(days=30))
    new = {"owner": "eve", "purpose": "to pay bills", "scopes": ["send:payment"]}
    one, named = {"agent_id": agent.id}, {"name": "new", "until": until}
    entry = {**new, "public_key": OTHER_KEY, "delegates": {"other": ["send:payment"]}}
    served = {"serves": ["send:email"], "resources": ["https://mail.test"]}
    return [
        (calls.REGISTER, {**new, **named, "public_key": KEY}),
        (calls.REGISTER, {"name": "made", "from": plan.id}),
        (calls.REGISTER, {**new, "name": "plan2", "template": True}),
        (calls.REGISTER, {**new, "name": "api2", "resource_server": True, **served}),
        (calls.REGISTER, {**new, "name": "ci", "subject": "github:repo:acme/x"}),
        (calls.NEW_SECRET, one),
        (calls.RENAME_AGENT, {**one, "name": "biller"}),
        (calls.SCOPES, {**one, "grant": ["send:email"], "seconds": 86_399}),
        (calls.SCOPES, {"agent_id": server.id, **served}),
        (calls.RATE, {**one, "decisions_a_second": 98_765}),
        (calls.DELEGATES, {**one, "to": other.id, "scopes": ["send:payment"]}),
        (calls.TOKEN, {**one, "scope": "send:payment", "resource": "acct:77"}),
        (calls.RESTORE, {**one, "until": until}),
        (calls.RESTORE, {"all": True}),
        (
            calls.CONNECT,
            {
                **one,
                "connection": "google",
                "scopes": ["write:calendar"],
                "redirect_uri": "http://127.0.0.1:1/callback",
            },
        ),
        (
            calls.SET_SECRET,
            {"name": "stripe", "value": SECRET, "for": ["https://api.test"]},
        ),
        (calls.REMOVE_SECRET, {"name": "siem"}),
        (calls.APPLY_POLICY, {"policy": MILD, "limits": HOOK, "reason": "tired"}),
        (
            calls.APPLY_FILES,
            {
                "accept": ["payer"],
                "agents": {
                    "payer": entry,
                    "n": {**new, "subject": "github:repo:acme/y"},
                    "t": {**new, "template": True, "until": until},
                    "of": {"from": "t"},
                    "srv": {**new, "resource_server": True, **served},
                },
                "services": {"stripe": SERVICE},
                "limits": HOOK,
                "prune": 0,
                "places": {"team/payers.toml": ["payer"]},
            },
        ),
        (calls.TEAM_KEY, {"lost": True}),
    ]


def values(member: object) -> Iterator[str]:
    """Yield the texts and numbers in a part of a request; of a file its lines."""
    if isinstance(member, dict):
        for name, one in member.items():
            yield str(name)
            yield from values(one)
    elif isinstance(member, list):
        for one in member:
            yield from values(one)
    elif isinstance(member, str):
        yield from filter(None, member.split("\n"))
    elif not isinstance(member, bool) and member:
        yield str(member)


def shows(text: str, value: str) -> bool:
    """Tell whether a page has a value, or the value as JSON writes it."""
    quoted = json.dumps(value)[1:-1]
    # Within a text that is JSON, such as a key, in a line that is JSON.
    return any(one in text for one in (value, in_full(value), quoted))


def test_each_member_of_each_call_that_loosens_is_in_these_requests(
    bench_requests: dict[str, set[str]],
) -> None:
    """Else a new member would be approved that no test has looked at."""
    for call in CALLS:
        if call.access not in {Access.EITHER, Access.LOOSEN} or call.asks is None:
            continue
        if call.path in NO_CHANGE:
            continue
        members = {one.encode_name for one in fields(call.asks)}
        assert members - ANSWERED <= bench_requests[call.path], call.path
    entry = {one.encode_name for one in fields(AgentEntry)}
    assert entry <= bench_requests["entry"]


@pytest.fixture
async def bench_requests(stand: Stand) -> dict[str, set[str]]:
    """Return the members that `requests` has, by path; `entry`: of an agent's entry."""
    found: dict[str, set[str]] = {"entry": set()}
    for call, body in await requests(stand.bench):
        found.setdefault(call.path, set()).update(body)
        for one in body.get("agents", {}).values():
            found["entry"].update(one)
    return found


async def test_every_value_of_a_request_that_loosens_is_shown(
    stand: Stand, page: Page
) -> None:
    """In the change that a console reads, and on the page where a factor is proven."""
    approver = await signed_in(stand, "approver")
    for call, body in await requests(stand.bench):
        change = await waits(await approver.post(call.path, **body))
        read = (await approver.get(f"/api/changes/{change['id']}")).json()
        del read["request"]  # the rest has to show it, as the page does
        texts = "\n".join(
            line for one in read.pop("texts") for line in (one["name"], one["diff"])
        )
        listed = json.dumps(read, ensure_ascii=False) + texts
        shown = await page.of(approver, change)
        unchanged = shipped_policy().split("\n")
        for value in values([*body.values()]):
            if value == SECRET or value in unchanged:
                continue
            assert shows(listed, value), (call.path, value)
            assert shows(shown, value), (call.path, value)
        for name, value in body.items():
            if value is True:
                assert name in shown, (call.path, name)
        assert SECRET not in listed + shown
        asked = {"id": change["id"], "decision": "deny"}
        assert (await approver.post("/api/changes", **asked)).status_code == 200


async def test_an_agent_that_files_change_is_shown_before_and_after(
    stand: Stand, page: Page
) -> None:
    """Which agent may act with which scope, and the key, not only that they differ."""
    approver = await signed_in(stand, "approver")
    await stand.bench.agent("payer", "send:payment", public_key=KEY)
    await stand.bench.agent("evil")
    entry = {
        "owner": "olga",
        "purpose": "tests",
        "scopes": ["send:payment"],
        "public_key": OTHER_KEY,
        "delegates": {"evil": ["send:payment"]},
    }
    change = await waits(await approver.post("/api/files", agents={"payer": entry}))
    shown = await page.of(approver, change)
    for line in (
        f"-public_key = {json.dumps(KEY)}",
        f"+public_key = {json.dumps(OTHER_KEY)}",
        '+delegates "evil" = "send:payment"',
    ):
        assert line in shown, line


async def test_a_long_text_says_how_many_lines_are_not_shown(
    stand: Stand, page: Page
) -> None:
    """The page is bounded in lines, in characters and in files."""
    approver = await signed_in(stand, "approver")
    many = "".join(f"// {number}\n" for number in range(1000)) + MILD
    change = await waits(await approver.post("/api/policy/apply", policy=many))
    shown = await page.of(approver, change)
    (text,) = (await approver.get(f"/api/changes/{change['id']}")).json()["texts"]
    left = len(text["diff"].splitlines()) - 200
    assert f"{left} lines more" in shown
    assert f"agentvault changes show {change['id']}" in shown
    agents = {f"n{number}": {"owner": "o"} for number in range(43)}
    files = {"agents": agents, "services": {"stripe": SERVICE}}
    change = await waits(await approver.post("/api/files", **files))
    assert "4 files more" in await page.of(approver, change)


async def test_a_hostile_line_is_shown_as_text(stand: Stand, page: Page) -> None:
    """HTML in a file is escaped, and what would hide or turn a line is spelled out."""
    approver = await signed_in(stand, "approver")
    hostile = f"// <b>ok</b>\u202e\u2028permit all\x1b[2K\n{MILD}"
    change = await waits(await approver.post("/api/policy/apply", policy=hostile))
    shown = await page.of(approver, change)
    raw = page.phone.answer.text
    assert "<b>ok" not in raw
    assert not {*raw} & {"\u202e", "\u2028", "\x1b"}
    assert "+// <b>ok</b>⟦U+202E⟧⟦U+2028⟧permit all⟦U+001B⟧[2K" in shown


async def test_a_line_break_of_unicode_hides_no_rule(stand: Stand) -> None:
    """A comment that becomes a rule, as its line separator becomes a line feed."""
    approver = await signed_in(stand, "approver")
    rule = "\n".join(MILD.strip().split("\n"))
    quiet = f"{shipped_policy()}// a remark{rule.replace(chr(10), ' ')}\n"
    loud = quiet.replace("// a remark", "// a remark\n")
    hidden = quiet.replace("// a remark", "// a remark\u2028")
    tightens = await approver.post("/api/policy/apply", policy=hidden)
    assert tightens.status_code == 200, tightens.text
    change = await waits(await approver.post("/api/policy/apply", policy=loud))
    read = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert "+@id(" in read["texts"][0]["diff"]


async def test_a_reset_shows_the_lines_that_come_back(stand: Stand) -> None:
    """The shipped file counts in place of the one that is gone."""
    approver = await signed_in(stand, "approver")
    rule = '@id("x") @why("y") forbid (principal, action, resource);'
    strict = f"{shipped_policy()}{rule}\n"
    tightens = await approver.post("/api/policy/apply", policy=strict)
    assert tightens.status_code == 200
    stand.bench.home.policy_file.unlink()
    change = await waits(await approver.post("/api/policy/reset"))
    read = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert f"-{rule}" in read["texts"][0]["diff"].splitlines()


async def test_another_tenant_is_sent_no_lines(stand: Stand) -> None:
    """An outside tenant has no page of ours, and bounds what it is sent."""
    stand.bench.broker.reaching.kind = "auth0"
    stand.bench.broker.settings = replace(
        stand.bench.broker.settings, tenant=TenantSettings()
    )
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post("/api/policy/apply", policy=MILD))
    asked = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
    assert (await approver.post("/api/changes", **asked)).status_code == 202
    (shown,) = stand.bench.tenant.shown[-1]
    assert "texts" not in shown


async def test_authorities_of_an_applied_service_are_part_of_the_change(
    stand: Stand, short: Path
) -> None:
    """It shows their digest, and is cancelled when the file becomes another."""
    approver, pem = await signed_in(stand, "approver"), short / "ca.pem"
    digests = list[str]()
    for name in "ab":
        other = Home.locate(short / name)
        other.prepare()
        renew(other, now=datetime.now(UTC))
        text = CaFiles.of(other).ca.read_text()
        pem.write_text(text)
        digests.append(sha256_hex(text))
    services = {"stripe": f'ca_file = "{pem}"\n{SERVICE}'}
    change = await waits(await approver.post("/api/files", services=services))
    assert change["details"]["ca_file"] == [f"{pem}: SHA-256 {digests[1]}"]
    pem.write_text(CaFiles.of(Home.locate(short / "a")).ca.read_text())
    await expire_due(stand.bench.broker)
    shown = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert shown["status"] == "cancelled"


async def test_a_rule_that_is_given_back_is_shown_as_it_is_now(bench: Bench) -> None:
    """An advised rule is removed by its id, whatever it says by then."""
    bench.broker.extensions.watch = watch = LedgerWatch(bench.broker, lambda _: None)  # type: ignore[arg-type,return-value]
    rule = (
        '@id("advice:adv_1") @why("Unused.")\n'
        'forbid (principal, action == Action::"send:email", resource);'
    )
    info = AdviceInfo(
        id="adv_1",
        kind="unused_scope",
        agent_id="",
        scope="send:email",
        evidence=AdviceEvidence(since="", until=""),
        change=AdvisedChange(rule=rule),
    )
    async with opened(bench) as stand:
        approver = await signed_in(stand, "approver")
        await watch.trials.apply(info, OPERATOR, 3600)
        other = rule.replace("send:email", "send:payment")
        text = bench.broker.deciding.policy.text.replace(rule, other)
        await apply_policy(bench.broker, {"policy": text}, OPERATOR, None, "")
        change = await waits(await approver.post("/api/advice/adv_1/give-back"))
        (shown,) = change["texts"]
        assert shown["name"] == "policy.cedar"
        assert '-forbid (principal, action == Action::"send:payment"' in shown["diff"]
        assert (await approve(stand, approver, change))["status"] == "applied"
    assert "advice:adv_1" not in bench.broker.deciding.policy.text
    await watch.aclose()
