"""A service file says which suffixes name no other resource, and all doors know it."""

from __future__ import annotations

import pytest
from support.call_kit import bearer
from support.gateway_stand import Stand
from support.stepups import details_of

from agentvault_tui.broker.answers import Denied, Granted
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.same_as import SAME_AS, parse_same_as
from agentvault_tui.model import Action
from agentvault_tui.policy.texts import shipped_policy

ROUTE = """
[[routes]]
method = "GET"
path = "/repos/{owner}/{repo}"
scope = "read:code"
resource = "repo:{owner}/{repo}"
"""
FORBID = """
@id("no") @why("Not this one.") @optional("resource")
forbid (principal, action, resource)
when { context has resource && context.resource like "repo:acme/Secret*" };
"""
LIMIT = """
[[limits]]
id = "each"
scopes = ["read:code"]
per = "resource"
within = "1h"
count = 2
over = "deny"
"""


def test_suffixes_are_checked() -> None:
    """Each begins with a dot and is in lower case; one that is not says so."""
    assert parse_same_as([".git", ".json", ".git"]) == (".git", ".json")
    assert parse_same_as([]) == ()
    for wrong in ("git", ".", ".GIT", ".a/b", ".x.", "." + "a" * 17, ". git"):
        with pytest.raises(ServiceError, match="same_as has the suffix"):
            parse_same_as([wrong])
    with pytest.raises(ServiceError, match="more than 16"):
        parse_same_as([f".{number}" for number in range(17)])


async def asked(stand: Stand, token: str, path: str) -> str:
    reply = await stand.client.get(f"/gw/api/repos/{path}", headers=bearer(token))
    return "granted" if reply.is_success else str(reply.json()["reason"])


async def test_a_forbid_holds_for_every_spelling_at_every_door(stand: Stand) -> None:
    """A call, and a token request that names the resource itself, are both denied."""
    await stand.service(f'same_as = [".git"]\n{ROUTE}')
    stand.bench.home.policy_file.write_text(shipped_policy() + FORBID)
    await reload_policy(stand.bench.broker)
    agent = await stand.agent("read:code")
    token = await stand.token(agent, "read:code")
    for path in (
        "acme/Secret",
        "acme/SECRET.git",
        "Acme/secret.git.",
        "acme.GIT/secret",
    ):
        assert await asked(stand, token, path) == "policy_forbids", path
    assert await asked(stand, token, "acme/open.git") == "granted"
    for name, kind in (("acme/SECRET.git", Denied), ("acme/open.git", Granted)):
        action = Action(("read:code",), "read:code", f"repo:{name}")
        answer = await request_token(
            *(stand.bench.broker, agent, action),
            resource=None,
            details=details_of(action),
        )
        assert isinstance(answer, kind)


async def test_spellings_share_a_window_until_the_file_says_otherwise(
    stand: Stand,
) -> None:
    """The default suffixes are one resource; with none of them each is its own."""
    await stand.service(ROUTE)
    (stand.bench.home.config / "limits.toml").write_text(LIMIT)
    await reload_policy(stand.bench.broker)
    token = await stand.token(await stand.agent("read:code"), "read:code")
    names = [f"acme/one{suffix}" for suffix in SAME_AS]
    told = [await asked(stand, token, name) for name in names]
    assert told == ["granted", "granted", "limit_reached"]
    (use,) = [one for one in await stand.bench.broker.deciding.limits.all() if one.key]
    assert (use.key, use.used) == ("repo:acme/one", 2)
    await stand.service(f"same_as = []\n{ROUTE}")
    assert await asked(stand, token, "acme/one.html") == "granted"
