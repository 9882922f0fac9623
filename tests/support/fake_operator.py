"""A scripted broker for console tests: real HTTP on a real Unix socket.

It speaks the operators' API of the contract and holds whatever a test puts in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from support.fake_activity import activity_shape
from support.fake_past import past_of
from support.fake_state import LEDGER, START, FakeState
from support.idle import SERVED
from support.patience import PATIENT

from agentvault_tui.clock import SystemClock, iso, parse_iso
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.calls import ApiCall
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.web import Server
from agentvault_tui.web.sockets import unix_socket

Handler = Callable[[Request], Awaitable[Any]]


def problem(status: int, detail: str, remedy: str) -> JSONResponse:
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status}
    document |= {"detail": detail, "remedy": remedy}
    return JSONResponse(document, status, media_type="application/problem+json")


class FakeOperator(FakeState):
    """The server over that state; a context manager."""

    def __init__(self, socket: Path, now: datetime = START) -> None:
        super().__init__(now)
        self.socket = socket
        self.later_pages = threading.Event()
        """While it is clear, no page of agents after the first is answered."""
        self.later_pages.set()
        self.delegated: list[dict[str, Any]] = []
        """Tokens of delegation trees, as the wire has them."""
        self._started = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    # Lifetime

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._started.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(PATIENT), "the fake broker did not start"

    def stop(self) -> None:
        """Go away, as a broker that is killed does."""
        stopping, loop, thread = self._stopping, self._loop, self._thread
        assert stopping is not None
        assert loop is not None
        assert thread is not None
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        assert not thread.is_alive(), "the fake broker did not stop"

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._loop = loop = asyncio.get_running_loop()
        async with Server(SystemClock()) as server:
            await server.listen(self._app(), unix_socket(self.socket))
            SERVED.add(loop)
            self._started.set()
            await self._stopping.wait()
            self._loop = None
            for queue in self._subscribers:
                queue.put_nowait(None)
        SERVED.discard(loop)

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                self._route(calls.AGENTS, self._list_agents),
                self._route(calls.STEPUPS, self._list_stepups),
                self._route(calls.DECIDE, self._decide),
                self._route(calls.STEPUP, self._one_stepup),
                self._route(calls.BEFORE, self._before),
                self._route(calls.SERVICES, self._services),
                self._route(calls.ALERTS, self._alerts),
                self._route(calls.LIMITS, self._limits),
                self._route(calls.RETRY_ALERT, self._retry_alert),
                self._route(calls.IN_FLIGHT, self._in_flight),
                self._route(calls.CUT_CALL, self._cut_call),
                self._route(calls.REVOKE, self._revoke),
                self._route(calls.RESTORE, self._restore),
                self._route(calls.AGENT, self._one_agent),
                self._route(calls.ACTIVITY, self._activity),
                self._route(calls.AUDIT, self._audit),
                self._route(calls.PAST, self._past),
                self._route(calls.PAST_ACTIVITY, self._past_activity),
                self._route(calls.LINKS, self._links),
                self._route(calls.STORY, self._story),
                self._route(calls.POLICY, self._policy),
                self._route(calls.PLAN, self._plan),
                self._route(calls.ADVICE, self._advice),
                self._route(calls.APPLY_ADVICE, self._decide_advice),
                self._route(calls.GIVE_BACK, self._decide_advice),
                self._route(calls.DISMISS_ADVICE, self._decide_advice),
                self._route(calls.STATUS, self._status),
                self._route(calls.TREE, self._delegations),
                Route(calls.EVENTS_PATH, self._stream),
            ]
        )

    def _route(self, call: ApiCall[Any], handler: Handler) -> Route:
        """Answer *call* with what the handler gives, in the call's own shape."""

        async def endpoint(request: Request) -> Response:
            found = await handler(request)
            if isinstance(found, Response):
                return found
            body = encode(msgspec.convert(found, call.answer))
            return Response(body, media_type="application/json")

        return Route(call.path, endpoint, methods=[call.method])

    # The faces

    async def _list_agents(self, request: Request) -> Any:
        query = request.query_params
        listed, following = list(self.agents.values()), None
        if "ids" in query:
            wanted = query["ids"].split(",")
            self.rereads.append(wanted)
            listed = [agent for agent in listed if agent["id"] in wanted]
        else:
            self.roster_reads += "after" not in query
            if "after" in query and not self.later_pages.is_set():
                await asyncio.to_thread(self.later_pages.wait, PATIENT)
            start = [*self.agents, None].index(query.get("after")) + 1
            start %= len(self.agents) + 1
            listed = listed[start : start + self.agents_a_page]
            if start + self.agents_a_page < len(self.agents):
                following = listed[-1]["id"]
        if query.get("tokens") != "true":
            listed = [without_tokens(agent) for agent in listed]
        return {"agents": listed, "next": following, "head": self.head}

    async def _delegations(self, _: Request) -> Any:
        return {"tokens": self.delegated, "total": len(self.delegated)}

    async def _one_agent(self, request: Request) -> Any:
        agent = self.agents.get(request.path_params["id"])
        return agent or problem(404, "no agent has that id", "")

    async def _activity(self, request: Request) -> Any:
        if answer := self.answers.get(request.url.path):
            return answer()
        agent = self.agents.get(request.path_params["id"])
        if agent is None:
            return problem(404, "no agent has that id", "")
        self.activity_reads += 1
        past, stepups = self.past.get(agent["id"]), list(self.stepups.values())
        nothing = {"hooks": [], "problem": None}
        uses = [one for one in self.uses if one["agent_id"] == agent["id"]]
        trials = [one for one in self.advice if one["agent_id"] == agent["id"]]
        return {
            **activity_shape(agent, self.events, stepups, self.now, past),
            "limits": {"limits": self.limits if uses else [], "uses": uses, **nothing},
            "trials": [one for one in trials if one.get("status") == "on_trial"],
        }

    async def _list_stepups(self, _: Request) -> Any:
        return {"stepups": list(self.stepups.values())}

    async def _one_stepup(self, request: Request) -> Any:
        stepup = self.stepups.get(request.path_params["id"])
        return stepup or problem(404, "no step-up has that id", "")

    async def _before(self, request: Request) -> Any:
        asked = self.stepups.get(request.path_params["id"])
        if asked is None:
            return problem(404, "no step-up has that id", "")
        kind = (asked["agent_id"], asked["action"])
        like = [
            other
            for other in self.stepups.values()
            if (other["agent_id"], other["action"]) == kind and other["decided_at"]
        ]
        like.sort(key=lambda other: other["decided_at"], reverse=True)
        return {"stepups": like[:5]}

    async def _past(self, request: Request) -> Any:
        told = past_of(self, request.query_params)
        if isinstance(told, str):
            return problem(404, told, "look elsewhere")
        return told

    async def _past_activity(self, request: Request) -> Any:
        told = past_of(self, request.query_params)
        if isinstance(told, str):
            return problem(404, told, "look elsewhere")
        wanted = request.query_params["agent"]
        agent = next((a for a in told["agents"] if a["id"] == wanted), None)
        if agent is None:
            return problem(404, "there was no such agent then", "look later")
        events = [e for e in self.events if e["seq"] <= told["seq"]]
        at = parse_iso(told["at"])
        shape = activity_shape(agent, events, told["stepups"], at)
        del shape["revoke"]
        return {**shape, "whole": not self.partial}

    async def _policy(self, _: Request) -> Any:
        told = {"version": "abc123", "text": "", "catalogue": self.catalogue}
        return {**told, "shadow": self.shadow}

    async def _plan(self, request: Request) -> Any:
        await self._noted(request)
        return self.planned or problem(409, "policy.cedar line 1: no rule", "")

    async def _advice(self, request: Request) -> Any:
        rate = {"applied": 4, "given_back": 1}
        window = int(request.query_params.get("window", 0)) or 60
        return {"advice": self.advice, "hit_rate": rate, "window": window}

    async def _decide_advice(self, request: Request) -> Any:
        await self._noted(request)
        status = {"apply": "on_trial", "give-back": "given_back"}
        word = status.get(request.url.path.rpartition("/")[2], "dismissed")
        for one in self.advice:
            if one["id"] == request.path_params["id"]:
                one["status"] = word
                return one
        return problem(404, "there is no such advice", "")

    async def _status(self, _: Request) -> Any:
        return self.status_shape()

    async def _audit(self, request: Request) -> Any:
        query = request.query_params
        limit = int(query.get("limit", 100))
        events = self.events
        if agent := query.get("agent"):
            events = [e for e in events if e["agent_id"] == agent]
        if outcome := query.get("outcome"):
            events = [e for e in events if e["outcome"] == outcome]
        if since := query.get("since"):
            events = [e for e in events if e["time"] >= since]
        if text := query.get("q"):
            events = [e for e in events if text.lower() in json.dumps(e).lower()]
        if "after" in query:
            found = [e for e in events if e["seq"] > int(query["after"])]
        else:
            before = int(query.get("before", self.head + 1))
            found = [e for e in reversed(events) if e["seq"] < before]
        page = found[:limit]
        more = page[-1]["seq"] if len(found) > limit else None
        return {"events": page, "next": more}

    async def _links(self, request: Request) -> Any:
        wanted = [int(each) for each in request.query_params["seq"].split(",")]
        links = [
            {
                "seq": event["seq"],
                "body": self.bodies[event["seq"]],
                "hash": event["hash"],
                "previous_hash": self.befores[event["seq"]],
            }
            for event in self.events
            if event["seq"] in wanted
        ]
        return {"ledger": LEDGER, "links": links}

    async def _story(self, request: Request) -> Any:
        seq = request.path_params["seq"]
        (anchor,) = (event for event in self.events if event["seq"] == seq)
        same = [e for e in self.events if e["decision_id"] == anchor["decision_id"]]
        return {"events": same, "complete": True}

    async def _noted(self, request: Request) -> tuple[dict[str, Any], Response | None]:
        body = await request.json()
        self.requests.append((request.method, request.url.path, body))
        answer = self.answers.get(request.url.path)
        return body, answer() if answer else None

    async def _decide(self, request: Request) -> Any:
        body, answer = await self._noted(request)
        if answer is not None:
            return answer
        stepup = self.stepups.get(body["id"])
        if stepup is None:
            return problem(404, "no step-up has that id", "")
        if stepup["status"] not in {"pending", "authorizing"}:
            return problem(409, f"it is {stepup['status']} already", "")
        if body["decision"] == "deny":
            stepup = {
                **stepup,
                "status": "denied",
                "denial": body.get("reason"),
                "decided_at": iso(self.now),
                "decided_by": {"sub": "uid:1000", "name": "alice", "amr": []},
            }
            self.put_stepup(stepup)
            agent = self.agents[stepup["agent_id"]]
            self.record("stepup.denied", agent, action=stepup["action"])
            return stepup
        if body["digest"] != stepup["digest"]:
            return problem(409, "Not what is stored", "the digest differs; look again")
        stepup = {
            **stepup,
            "status": "authorizing",
            "device": {
                "user_code": "KDRT-WZNB",
                "verification_uri": "https://acme.eu.auth0.com/activate",
                "verification_uri_complete": "https://acme.eu.auth0.com/activate"
                "?user_code=KDRT-WZNB",
                "expires_in": 120,
                "interval": 2,
                "expires_at": iso(self.now + timedelta(seconds=120)),
            },
        }
        self.put_stepup(stepup)
        return stepup

    async def _services(self, _: Request) -> Any:
        return {"services": self.services, "problems": self.broken_files}

    async def _limits(self, _: Request) -> Any:
        told = {"limits": self.limits, "uses": self.uses, "hooks": self.hooks}
        return {**told, "problem": None}

    async def _alerts(self, _: Request) -> Any:
        return {"sinks": self.sinks, "dead": self.dead}

    async def _retry_alert(self, request: Request) -> Any:
        body, answer = await self._noted(request)
        self.dead = [one for one in self.dead if one["id"] != body["id"]]
        self.send("status", self.status_shape())
        sent = {"sink": "ops", "ok": True, "ms": 12.0, "problem": None}
        return answer or sent

    async def _in_flight(self, _: Request) -> Any:
        return {"calls": list(self.calls.values())}

    async def _cut_call(self, request: Request) -> Any:
        _, answer = await self._noted(request)
        call = self.calls.pop(request.path_params["id"], None)
        if answer is not None or call is None:
            return answer or problem(404, "no call in flight has that id", "")
        ended = {**call, "state": "ended", "ended": "cut"}
        self.send("call", ended)
        return ended

    async def _revoke(self, request: Request) -> Any:
        body, answer = await self._noted(request)
        if answer is not None:
            return answer
        if body.get("all"):
            self.panic = {
                "on": True,
                "since": iso(self.now),
                "by": "alice",
                "reason": body.get("reason", ""),
            }
            self.send("status", self.status_shape())
            self.record("panic.on", reason=body.get("reason", ""))
            counts = {"agents": len(self.agents), "tokens_revoked": 3}
            return {
                **counts,
                "stepups_cancelled": 0,
                "effective_ms": 1.2,
                "upstream": [],
            }
        agent = self.agents.get(body["agent_id"])
        if agent is None:
            return problem(404, "no agent has that id", "")
        cut = len(agent["tokens"])
        flying = [c for c in self.calls.values() if c["agent_id"] == agent["id"]]
        for call in flying:
            self.send("call", {**self.calls.pop(call["id"]), "state": "ended"})
        agent.update(status="revoked", tokens=[], revoked_at=iso(self.now))
        self.put_agent(agent)
        self.record("agent.revoked", agent, reason=body.get("reason", ""))
        return {
            "agent": agent,
            "tokens_revoked": cut,
            "stepups_cancelled": 0,
            "calls_cut": len(flying),
            "calls_sent": sum(call["state"] == "streaming" for call in flying),
            "effective_ms": 1.2,
            "upstream": [{"step": "vault grant", "status": "pending", "ms": None}],
        }

    async def _restore(self, request: Request) -> Any:
        body, answer = await self._noted(request)
        if answer is not None:
            return answer
        if body.get("all"):
            self.panic = {"on": False, "since": None, "by": None, "reason": None}
            self.send("status", self.status_shape())
            self.record("panic.off")
            return {"agents": len(self.agents)}
        agent = self.agents[body["agent_id"]]
        agent.update(status="active", revoked_at=None)
        self.put_agent(agent)
        self.record("agent.restored", agent)
        return {"agent": agent}

    async def _stream(self, request: Request) -> Any:
        last = request.headers.get("last-event-id")
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        if last is not None and int(last) > self.head:
            queue.put_nowait("event: reset\ndata: {}\n\n")
        for event in self.events if last is not None else ():
            if event["seq"] > int(last or 0):
                queue.put_nowait(
                    f"event: audit\nid: {event['seq']}\ndata: {json.dumps(event)}\n\n"
                )
        self._subscribers.add(queue)

        async def frames() -> AsyncIterator[str]:
            try:
                while (frame := await queue.get()) is not None:
                    while not queue.empty():
                        more = queue.get_nowait()
                        if more is None:
                            yield frame
                            return
                        frame += more
                    yield frame
            finally:
                self._subscribers.discard(queue)

        return StreamingResponse(frames(), media_type="text/event-stream")


@contextlib.contextmanager
def short_socket() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        yield Path(folder) / "s.sock"


def without_tokens(agent: dict[str, Any]) -> dict[str, Any]:
    """Return an agent as a page of many has it."""
    told = dict(agent)
    tokens = sorted(told.pop("tokens"), key=lambda token: str(token["expires_at"]))
    told.setdefault("tokens_live", len(tokens))
    told["tokens_elevated"] = sum(token["kind"] == "elevated" for token in tokens)
    told["next_token"] = tokens[0] if tokens else None
    return told
