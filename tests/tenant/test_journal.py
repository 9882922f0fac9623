"""The tenant's log: one row an event, checkpoints, search, caps and delay."""

from __future__ import annotations

import re

import pytest
from auth0_double.running import START, TenantThread
from starlette.requests import Request
from support.manual_clock import ManualClock
from support.tenant_admin import CALLBACK, DATABASE, Admin, Agent, query_of
from support.tenant_store import open_store

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.home import Home
from agentvault_tui.tenant import journal as journal_module
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.device_page_client import Activation
from agentvault_tui.tenant.journal import Journal
from agentvault_tui.tenant.store import Store

KEYS = {
    "_id", "log_id", "date", "type", "description", "connection", "client_id",
    "client_name", "ip", "hostname", "details", "user_id", "user_name", "user_agent",
    "audience", "scope",
}  # fmt: skip

REQUEST = Request({"type": "http", "headers": []})
CLIENT = Client("c", {"name": "c"})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(home: Home) -> Store:
    return open_store(home)


def journal(store: Store, clock: ManualClock) -> Journal:
    return Journal(store, clock, "tenant.test")


def test_log_rows_have_auth0s_keys(admin: Admin) -> None:
    """Every key of Auth0's rows, and an id of 56 digits that equals _id."""
    admin.user("row")
    row = admin.rows("sapi")[0]
    assert set(row) == KEYS
    assert row["_id"] == row["log_id"]
    assert re.fullmatch(r"900\d{53}", row["log_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["date"])
    assert admin.call("GET", f"logs/{row['log_id']}").json() == row


def test_log_checkpoints_give_each_row_once(admin: Admin) -> None:
    """From the newest row on: only newer ones, oldest first, next by Link."""
    start = admin.call("GET", "logs", sort="date:-1", per_page=1).json()[0]["log_id"]
    for number in range(5):
        admin.user(f"checkpoint-{number}")
    seen: list[str] = []
    query = {"from": start, "take": "2", "q": "type:nothing"}
    while True:
        answer = admin.call("GET", "logs", **query)
        rows = answer.json()
        link = answer.headers["link"]
        assert link.endswith('>; rel="next"')
        query = query_of(link.partition(">")[0][1:])
        if not rows:
            break
        seen += [row["log_id"] for row in rows]
        assert len(rows) <= 2
    assert len(seen) == 5
    assert seen == sorted(seen)
    assert start not in seen
    # At the end the link stays, and what comes later is found by it.
    assert query == {"from": seen[-1], "take": "2"}
    admin.user("checkpoint-later")
    assert len(admin.call("GET", "logs", **query).json()) == 1


def test_logs_are_searched_by_field(admin: Admin) -> None:
    """Terms joined by AND, case and all, a star at the end; with totals if asked."""
    admin.user("searched")
    found = admin.call(
        "GET", "logs", q='type:sapi AND description:"Create a User"',
        include_totals="true", per_page=1,
    ).json()  # fmt: skip
    assert set(found) == {"start", "limit", "length", "total", "logs"}
    assert found["logs"][0]["description"] == "Create a User"
    starred = admin.call("GET", "logs", q="description:Create*", per_page=1).json()
    assert starred == found["logs"]
    assert admin.call("GET", "logs", q="type:SAPI").json() == []
    fields = admin.call("GET", "logs", fields="type,date", per_page=1).json()
    assert set(fields[0]) == {"type", "date"}
    oldest = admin.call("GET", "logs", sort="date:1", per_page=1).json()[0]
    assert oldest["log_id"] < found["logs"][0]["log_id"]
    assert admin.call("GET", "logs", sort="type:1").status_code == 400
    quoted = admin.call("GET", "logs", q='type:"x\' OR 1=1 --"')
    assert (quoted.status_code, quoted.json()) == (200, [])


@pytest.mark.one_file
def test_each_end_of_a_device_flow_is_logged(tenant: TenantThread) -> None:
    """gd_auth_succeed, s and sede; fdecc on cancel; fdeac when tries ran out; fdeaz."""
    admin = Admin(tenant)
    alice = tenant.users.add("alice", approver=True)
    flow = tenant.flow()
    tenant.approve(flow, alice)
    assert tenant.poll(flow).status_code == 200
    for kind in ("gd_auth_succeed", "s", "sede"):
        assert admin.rows(kind)[0]["user_name"] == "alice", kind
    prompts = admin.rows("s")[0]["details"]["prompts"]
    assert prompts[1]["performed_amr"] == ["mfa"]
    cancelled = tenant.flow()
    with Activation() as pages:
        pages.open(tenant.issuer, cancelled["user_code"])
        pages.cancel()
    assert tenant.poll(cancelled).json()["error"] == "access_denied"
    assert admin.rows("fdecc")[0]["client_name"] == "AgentVault Console"
    assert admin.rows("fede")[0]["details"]["error"] == "access_denied"
    assert admin.rows("fp") == []
    tenant.ask(audience="https://nowhere.test/")
    assert admin.rows("fdeaz")[0]["description"].startswith("Service not found")
    # Its id is the broker's secret of this run: the log has another name for it.
    assert tenant.client_id not in str(admin.call("GET", "logs").json())


def test_log_rows_name_the_connection(admin: Admin) -> None:
    """Where users sign in, and the provider of an exchange; machines have none."""
    agent = Agent(admin, "connected-bot")
    token = agent.tokens()["refresh_token"]
    agent.connect(agent.me_token(token))
    assert agent.exchange(token).status_code == 200
    agent.exchange(token, connection="invented")
    told = {kind: admin.rows(kind)[0]["connection"]
            for kind in ("s", "seta", "feta", "seccft")}  # fmt: skip
    assert told == {
        "s": DATABASE, "seta": "workspace", "feta": "invented", "seccft": None
    }  # fmt: skip
    tied = admin.call("GET", "logs", q="connection:workspace").json()
    assert {row["type"] for row in tied} >= {"seta"}


def test_a_failed_my_account_call_is_logged(admin: Admin) -> None:
    """A proof that is none, and an account there is not: one row each."""
    agent = Agent(admin, "failing-bot")
    me = agent.me_token(agent.tokens()["refresh_token"])
    started = agent.start(me)
    proof = {"auth_session": started["auth_session"], "connect_code": "invented"}
    body = {**proof, "redirect_uri": CALLBACK}
    assert agent.me(me, "POST", "complete", body).status_code == 400
    assert agent.me(me, "DELETE", "accounts/cac_invented").status_code == 404
    for kind in ("connection", "delete"):
        row = admin.rows(f"connected_accounts_{kind}_failed")[0]
        assert row["user_name"] == "failing-bot"
        assert row["connection"] is None


@pytest.mark.one_file
def test_each_outcome_of_a_second_factor_is_logged(tenant: TenantThread) -> None:
    """Asked for, wrong, and locked; a lock of passwords has a code of its own."""
    admin = Admin(tenant)
    ann = tenant.users.add("ann@acme.test")
    for tries in (5, 1):
        with Activation() as pages:
            pages.open(tenant.issuer, tenant.flow()["user_code"])
            pages.sign_in(ann.user.name, ann.password)
            for _ in range(tries):
                with pytest.raises(TenantRefusedError):
                    pages.one_time_code("000000")
    agent = Agent(admin, "locked-bot")
    agent.person.open("authorize", **agent.authorize_query())
    for _ in range(6):
        agent.person.send("login", user=ann.user.name, password="wrong")
    agent.person.send("login", user="nobody", password="wrong")
    wanted = {
        "gd_start_auth": 2, "gd_auth_failed": 5, "gd_otp_rate_limit_exceed": 1,
        "fp": 5, "limit_wc": 1, "fu": 1,
    }  # fmt: skip
    assert {kind: len(admin.rows(kind)) for kind in wanted} == wanted


def test_log_ids_grow_when_the_clock_goes_back(
    store: Store, clock: ManualClock
) -> None:
    """Also over a restart: whoever resumes from an id misses nothing."""
    first = journal(store, clock)
    for _ in range(3):
        first.write("s", REQUEST, client=CLIENT)
    clock.jump_wall(-3600)
    second = journal(store, clock)
    clock.advance(1)
    second.write("f", REQUEST, client=CLIENT)
    ids = [row["log_id"] for row in second.page(0, 10, newest_first=False)]
    clock.jump_wall(3600)
    rows = second.after("", 10)
    assert len(rows) == 4
    assert ids == sorted(ids)
    assert rows[-1]["type"] == "f"
    store.close()


def test_the_log_drops_its_oldest_rows(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest rows go, the newest stay."""
    monkeypatch.setattr(journal_module, "MOST_ROWS", 50)
    kept = journal(store, clock)
    for number in range(202):
        kept.write(f"t{number}", REQUEST, client=CLIENT)
    rows = kept.page(0, 500)
    assert len(rows) <= 151
    assert rows[0]["type"] == "t201"
    store.close()


def test_rows_of_unknown_clients_are_limited_to_sixty_a_minute(
    store: Store, clock: ManualClock
) -> None:
    """Rows of nobody are sixty a minute; those of clients are never held back."""
    flooded = journal(store, clock)
    for _ in range(100):
        flooded.write("feccft", REQUEST)
    flooded.write("feccft", REQUEST, client=CLIENT)
    assert len(flooded.page(0, 500)) == 61
    clock.advance(60)
    flooded.write("feccft", REQUEST)
    assert len(flooded.page(0, 500)) == 62
    store.close()
