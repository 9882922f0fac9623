"""Work that an operator's request causes is shared out, and ends with its client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from support.bench import Bench
from support.gateway_stand import operators_http
from support.loosenings import opened, signed_in

from agentvault_tui.broker.operators_api.long_work import (
    AnswerTurns,
    OperatorShares,
    while_connected,
)
from agentvault_tui.errors import ConflictError
from agentvault_tui.gateway import Gateway
from agentvault_tui.gateway import services as services_module
from agentvault_tui.ledger.query import read_applied
from agentvault_tui.operator_api.files import MOST_AGENTS
from agentvault_tui.web.admission import AdmissionQueue
from agentvault_tui.web.exchange import ClientGoneError

ORIGIN = 'origin = "https://api.mail.example"\n'
ROUTE = '[[routes]]\nmethod = "GET"\npath = "/"\nscope = "read:files"\n'


def test_an_operator_has_a_share() -> None:
    """A third request is refused until one has ended; another operator's is not."""
    shares = OperatorShares("plans")
    with shares.of("uid:1"), shares.of("uid:2"):
        with (
            shares.of("uid:1"),
            pytest.raises(ConflictError, match="2 plans that you asked for"),
            shares.of("uid:1"),
        ):
            raise AssertionError("it was counted")
        with shares.of("uid:1"):
            pass


async def test_the_work_ends_with_its_client() -> None:
    """If the client disconnects, the work is cancelled."""
    gone, began, ended = (asyncio.Event() for _ in range(3))
    body = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if body:
            return body.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    request = Request({"type": "http"}, receive)
    answering = asyncio.create_task(while_connected(request, work()))
    await began.wait()
    gone.set()
    with pytest.raises(ClientGoneError):
        await answering
    assert ended.is_set()


async def test_operators_make_parts_of_answers_in_turn() -> None:
    """An operator with ten answers is admitted as often as one with one answer."""
    turns, made = AnswerTurns(AdmissionQueue(1)), list[str]()

    async def answer(operator: str) -> None:
        for _ in range(5):
            await turns.next(operator)
            made.append(operator)

    many = [answer("uid:1") for _ in range(10)]
    await asyncio.gather(*many, answer("uid:2"))
    last = max(number for number, one in enumerate(made) if one == "uid:2")
    assert made[: last + 1].count("uid:1") <= 7
    assert len(made) == 55


async def test_one_part_of_an_answer_is_made_in_a_turn_of_the_loop() -> None:
    """However many answers wait, the loop turns between two parts of them."""
    turns, number, made = AnswerTurns(AdmissionQueue(1)), 0, list[int]()

    async def count() -> None:
        nonlocal number
        while True:
            number += 1
            await asyncio.sleep(0)

    async def answer(operator: str) -> None:
        for _ in range(5):
            await turns.next(operator)
            made.append(number)

    counting = asyncio.ensure_future(count())
    await asyncio.gather(*(answer(f"uid:{one % 2}") for one in range(8)))
    counting.cancel()
    assert len(set(made)) == 40


async def test_plans_of_files_of_one_operator_are_few(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While two plans of an operator are computed, a third is refused with 409."""
    let, read = asyncio.Event(), bench.ledger.read

    async def slow(function: Any, *args: Any) -> Any:
        if function is read_applied:
            await let.wait()
        return await read(function, *args)

    async with opened(bench) as stand:
        oscar = await signed_in(stand, "operator", "oscar")
        olga = await signed_in(stand, "operator", "olga")
        monkeypatch.setattr(bench.ledger, "read", slow)
        plans = [
            asyncio.create_task(oscar.post("/api/files", plan=True)) for _ in range(3)
        ]
        done, waiting = await asyncio.wait(plans, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result().status_code for one in done] == [409]
        other = asyncio.create_task(olga.post("/api/files", plan=True))
        let.set()
        answers = [*await asyncio.gather(*waiting), await other]
        assert [one.status_code for one in answers] == [200] * 3


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            {"agents": {f"a{n}": {"owner": "o"} for n in range(MOST_AGENTS + 1)}},
            "'agents' is wrong",
        ),
        (
            {"agents": {"a": {"owner": "o", "scopes": ["x"] * 50_000}}},
            "more than 50,000 members",
        ),
        ({"services": {"x": ORIGIN + ROUTE * 1001}}, "more than 1000 routes"),
    ],
    ids=["agents", "members", "routes"],
)
async def test_files_are_bounded(
    bench: Bench, body: dict[str, Any], reason: str
) -> None:
    """A request with more agents, members or routes than the bound is refused."""
    gateway = bench.broker.extensions.gateway = Gateway(bench.broker)
    await gateway.start()
    async with operators_http(bench) as http:
        answer = await http.post("/api/files", json={**body, "plan": True})
    await gateway.aclose()
    assert answer.status_code == 400
    assert reason in answer.json()["detail"]


async def test_services_of_files_are_parsed_in_a_process_of_their_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's process parses no text that is only planned."""

    def refuse(*_: object) -> None:
        raise AssertionError("it was parsed by the broker's process")

    gateway = bench.broker.extensions.gateway = Gateway(bench.broker)
    await gateway.start()
    monkeypatch.setattr(services_module, "parse_service", refuse)
    async with operators_http(bench) as http:
        good, bad = [
            await http.post("/api/files", json={"services": {"m": text}, "plan": True})
            for text in (ORIGIN, "origin = 1")
        ]
    await gateway.aclose()
    assert [one["name"] for one in good.json()["changes"]] == ["m"]
    assert bad.status_code == 400
    assert "services/m.toml" in bad.json()["detail"]
