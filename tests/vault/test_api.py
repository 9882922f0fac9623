"""The client of an API: what it sends and takes, and lists to their end."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exchanges import answer, rows_of
from support.manual_clock import ManualClock
from support.rogue_tenant import TOKEN, Answer, Request, RogueTenant

from agentvault_tui.errors import (
    TenantCredentialError,
    TenantError,
    TenantScopeError,
    TenantUnreachableError,
)
from agentvault_tui.vault import Management, Priority
from agentvault_tui.vault.api import TenantApi
from agentvault_tui.vault.issuer import is_path, path

GRANTS = "/api/v2/grants"
CONNECTIONS = "/api/v2/connections"


def by_number(total: int, *, limit: int = 100, bare: bool = False) -> Any:
    """Answer as a list of *total* rows that is paged by number."""

    def answer(request: Request) -> Answer:
        start = int(request.query["page"]) * limit
        rows = [{"id": n} for n in range(start, min(start + limit, total))]
        if bare:
            return Answer(rows)
        return Answer({"start": start, "limit": limit, "total": total, "grants": rows})

    return answer


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("total", [0, 1, 99, 100, 101, 250, 1000])
async def test_every_page_of_a_numbered_list_is_read(
    tenant: RogueTenant, api: Management, total: int, bare: bool
) -> None:
    """With totals or without, each row comes once and in order."""
    tenant.script(GRANTS, by_number(total, bare=bare))
    if bare and total == 1000:
        with pytest.raises(TenantError, match="shows 1000 rows"):
            await rows_of(api.by_page("grants", "grants"))
        return
    found = await rows_of(api.by_page("grants", "grants", query={"user_id": "u"}))
    assert [row["id"] for row in found] == list(range(total))
    first = tenant.sent(GRANTS)[0]
    assert first.query == {
        "user_id": "u",
        "page": "0",
        "per_page": "100",
        "include_totals": "true",
    }


async def test_a_smaller_page_than_asked_for_does_not_end_a_list(
    tenant: RogueTenant, api: Management
) -> None:
    """With a total, a short page is not taken for the last one."""
    tenant.script(GRANTS, by_number(120, limit=50))
    assert len(await rows_of(api.by_page("grants", "grants"))) == 120


async def test_a_list_of_more_than_1000_rows_is_an_error(
    tenant: RogueTenant, api: Management
) -> None:
    """What Auth0 does not show by page is said, after what it does show."""
    tenant.script(GRANTS, by_number(1001))
    rows = api.by_page("grants", "grants")
    seen = [await anext(rows) for _ in range(1000)]
    assert [row["id"] for row in seen] == list(range(1000))
    with pytest.raises(TenantError, match="has more"):
        await anext(rows)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_every_page_of_a_checkpoint_list_is_read(
    tenant: RogueTenant, api: Management, count: int
) -> None:
    """The mark of one answer asks for the next; without a mark it ends."""

    def answer(request: Request) -> Answer:
        at = int(request.query.get("from", "0"))
        rows = [{"id": at}] if count else []
        following = {"next": str(at + 1)} if at + 1 < count else {}
        return Answer({"connections": rows, **following})

    tenant.script(CONNECTIONS, answer)
    found = await rows_of(api.by_checkpoint("connections", "connections"))
    assert [row["id"] for row in found] == list(range(count))
    assert tenant.sent(CONNECTIONS)[0].query == {"take": "100"}


@pytest.mark.parametrize(
    ("rows", "mark", "asked"),
    [(1, "a", 2), pytest.param(30_000, "{}", 4, marks=pytest.mark.slow)],
    ids=["the same mark", "new marks"],
)
async def test_an_endless_list_is_an_error(
    tenant: RogueTenant, api: Management, rows: int, mark: str, asked: int
) -> None:
    """A mark that comes again ends it at once, new ones after a bound of rows."""

    def answer(request: Request) -> Answer:
        at = int(request.query.get("from", "0").replace("a", "0"))
        following = mark.format(at + 1)
        return Answer({"connections": [{"id": 1}] * rows, "next": following})

    tenant.script(CONNECTIONS, answer)
    with pytest.raises(TenantUnreachableError, match="has no end"):
        await rows_of(api.by_checkpoint("connections", "connections"))
    assert tenant.asked(CONNECTIONS) == asked


NO_LIST = "something else than a list"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"total": 7, "grants": []}, "promised 7 rows"),
        *(({}, NO_LIST), ({"grants": {}}, NO_LIST), ([1], NO_LIST)),
        *(("x", NO_LIST), (None, NO_LIST), ({"grants": [1]}, NO_LIST)),
    ],
)
async def test_an_answer_without_a_list_is_an_error(
    tenant: RogueTenant, api: Management, body: Any, said: str
) -> None:
    """Rubbish, or no row where some were promised, does not read as the end."""
    tenant.script(GRANTS, Answer(json.dumps(body).encode()))
    with pytest.raises(TenantUnreachableError, match=said):
        await rows_of(api.by_page("grants", "grants"))


@pytest.mark.parametrize(
    ("segments", "written"),
    [
        (("users", "auth0|u1"), "users/auth0%7Cu1"),
        (("resource-servers", "https://a.test/"), "https%3A%2F%2Fa.test%2F"),
        (("users", "../clients"), "users/..%2Fclients"),
        (("users", "a?b#c&d e"), "users/a%3Fb%23c%26d%20e"),
        (("users", "ü%2f"), "users/%C3%BC%252f"),
    ],
)
async def test_an_id_stays_one_segment_on_the_wire(
    tenant: RogueTenant, api: Management, segments: tuple[str, ...], written: str
) -> None:
    """Whatever an id holds, it climbs nowhere, asks nothing, and arrives whole."""
    where = f"/api/v2/{path(*segments)}"
    tenant.script(where, Answer({"ok": True}))
    assert (await api.request("GET", path(*segments))).body == {"ok": True}
    assert tenant.requests[-1].path.endswith(written)


@pytest.mark.parametrize("segment", ["", ".", ".."])
def test_an_id_of_dots_is_refused(segment: str) -> None:
    """The tenant's ids stand in our addresses: none leads to another object's."""
    with pytest.raises(TenantUnreachableError, match="names nothing"):
        path("clients", segment, "credentials")


@pytest.mark.parametrize(
    "bad", ["", "/", "a//b", "../x", "a/../b", "a/./b", "a?b", "a b", "/a", "http://x"]
)
async def test_an_unquoted_path_is_refused(api: Management, bad: str) -> None:
    """Text that was put into a path by hand is refused before anything is sent."""
    with pytest.raises(ValueError, match=r"issuer\.path"):
        await api.request("GET", bad)


@given(st.lists(st.text(), max_size=4))
def test_any_segments_make_a_quoted_path_or_an_error(segments: list[str]) -> None:
    """A path that `path` makes is one that requests take."""
    try:
        made = path(*segments)
    except (TenantUnreachableError, UnicodeEncodeError):
        return
    assert is_path(made)
    assert made.count("/") == len(segments) - 1


async def test_a_refused_access_token_is_replaced_once(
    tenant: RogueTenant, api: Management
) -> None:
    """A 401 costs one fresh token and one more try, also for what makes things."""
    refused = Answer({"statusCode": 401, "message": "Invalid token"}, 401)
    tenant.script(GRANTS, Answer({}), refused, Answer({"ok": 1}, 201), refused)
    await api.request("GET", "grants")
    reply = await api.request("POST", "grants", body={}, expect=(201,))
    assert reply.body == {"ok": 1}
    sent = [one.headers["authorization"] for one in tenant.sent(GRANTS)]
    assert sent == ["Bearer at-1", "Bearer at-1", "Bearer at-2"]
    with pytest.raises(TenantCredentialError):
        await api.request("GET", "grants")
    assert tenant.asked(TOKEN) == 3


async def test_a_scope_granted_since_gets_a_fresh_token(
    tenant: RogueTenant, api: Management, clock: ManualClock
) -> None:
    """A day's token has old scopes: after a minute a fresh one is tried, once."""
    missing = answer("management", "insufficient_scope")
    tenant.script(GRANTS, missing, missing, Answer({"ok": 1}), missing)
    with pytest.raises(TenantScopeError):
        await api.request("GET", "grants")
    assert tenant.asked(TOKEN) == 1
    clock.advance(60)
    assert (await api.request("GET", "grants")).body == {"ok": 1}
    with pytest.raises(TenantScopeError):
        await api.request("GET", "grants")
    assert tenant.asked(TOKEN) == 2


async def test_an_apis_answer_may_have_four_megabytes(
    tenant: RogueTenant, api: Management
) -> None:
    """A page of log rows fills one; what is longer is not read."""
    rows = [{"id": "x" * 10_000}] * 100
    tenant.script(GRANTS, Answer(rows), Answer(rows * 5))
    assert len((await api.request("GET", "grants")).rows()) == 100
    with pytest.raises(TenantUnreachableError, match="more than 4096 KiB"):
        await api.request("GET", "grants")


async def test_an_unexpected_success_status_is_an_outage(
    tenant: RogueTenant, api: Management
) -> None:
    """A 200 where a 204 is the answer means that something else answered."""
    tenant.script(GRANTS, Answer({}))
    with pytest.raises(TenantUnreachableError, match="answered 200 where nothing does"):
        await api.request("DELETE", "grants", expect=(204,))


async def test_parameters_are_written_as_auth0_reads_them(
    tenant: RogueTenant, api: Management
) -> None:
    """Truths are lower-case words, nothing is left out, marks are quoted."""
    tenant.script(GRANTS, Answer({}))
    query = {"a": True, "b": False, "c": None, "d": 5, "e": "x&y=z +ü"}
    await api.request("GET", "grants", query=query)
    expected = {"a": "true", "b": "false", "d": "5", "e": "x&y=z +ü"}
    assert tenant.requests[-1].query == expected


async def test_background_requests_leave_one_for_operators(
    tenant: RogueTenant, api: Management, naps: list[float]
) -> None:
    """The same client at another priority shares token and budget, and waits."""
    tenant.script(GRANTS, Answer({}))
    log = api.at(Priority.BACKGROUND)
    for _ in range(4):
        await log.request("GET", "grants")
    assert naps == [0.5, 0.5, 0.5]
    await api.request("GET", "grants")
    assert len(naps) == 3
    await log.at(Priority.OPERATOR).request("GET", "grants")
    assert naps[3:] == [0.5]
    assert tenant.asked(TOKEN) == 1


async def test_an_api_tells_its_tokens_scopes(
    tenant: RogueTenant, api: TenantApi
) -> None:
    """What may be done can be looked up before it is tried."""
    assert await api.scopes() == {"read:clients", "update:clients"}
