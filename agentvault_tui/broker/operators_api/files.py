"""``/api/files``: the active state as files, and applying files."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

from msgspec.structs import asdict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.authorities import file_digest, named_files
from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker, decide_anew
from agentvault_tui.broker.operators_api.changes import How, Loosening
from agentvault_tui.broker.operators_api.idle import decides_nothing
from agentvault_tui.broker.operators_api.long_work import (
    OperatorShares,
    while_connected,
)
from agentvault_tui.broker.operators_api.wire import (
    Turn,
    body_of,
    operator_of,
    route,
    turn_of,
)
from agentvault_tui.broker.riders import riding, text_change
from agentvault_tui.broker.usecases.apply import (
    FilesPlan,
    apply_files,
    loosened,
    plan_files,
)
from agentvault_tui.broker.usecases.apply_doubts import AgentChange
from agentvault_tui.broker.usecases.apply_entries import NEXT_TURN, entry_of, files_of
from agentvault_tui.broker.usecases.changes import Wanted, shown_digest
from agentvault_tui.broker.usecases.policy_apply import TextEdit, edits_of
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import ConflictError
from agentvault_tui.ledger.query import read_applied
from agentvault_tui.model import Actor, Agent, AgentId, ChangedText
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.files import (
    AgentFieldChange,
    FileChange,
    FilesAnswer,
    FilesInfo,
    FilesRequest,
)
from agentvault_tui.text import in_full, visible

_A_TURN: Final = 25
"""Agents of an answer that are described in one turn of the event loop."""
_MEMBERS: Final = 50_000
"""Commas and colons of a request: parsing more would delay others' requests."""


def routes(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes about files."""

    async def show(request: Request) -> FilesInfo:
        """Return the active state as files."""
        return await files_of(broker, turn_of(request))

    shares, turn = OperatorShares("plans of files"), asyncio.Lock()

    async def plan_of(wanted: FilesRequest) -> FilesPlan:
        async with turn:
            came = await broker.ledger.read(read_applied)
            edits = await edits_of(broker, wanted)
            return await plan_files(broker, wanted, came, edits)

    async def apply(request: Request) -> FilesAnswer | Response:
        """Put files in effect, or return the difference."""
        with shares.of(operator_of(request).id):
            wanted = await body_of(request, FilesRequest, deep=True, members=_MEMBERS)
            plan = await while_connected(request, plan_of(wanted))
        refused = authority.standing(operator_of(request).id).refused
        # Names alone are recorded by the next one who may grant.
        reads = wanted.plan or (plan.only_names and Need.GIVE in refused)
        if reads or not plan:
            decides_nothing(request)
        if reads:
            turn = turn_of(request)
            return await _answer(broker, plan, turn, applied=False, recorded=True)
        local = Need.GIVE if plan.widens else Need.REVOKE
        # In a thread: of hundreds of agents it takes 0.1 s.
        loosens = await asyncio.to_thread(_loosened, broker, plan)
        return await applying.settle(request, wanted, loosens, local=local)

    async def do_apply(wanted: FilesRequest, operator: Actor, how: How) -> FilesAnswer:
        """Apply the files; refuse another loosening than the one that was judged."""

        async def who(plan: FilesPlan) -> Actor:
            loosens = await asyncio.to_thread(_loosened, broker, plan)
            if loosens.kinds and how.shown != shown_digest(loosens):
                raise ConflictError(
                    "others changed something meanwhile, so that this now loosens more",
                    "see the difference: agentvault apply -f FILE --plan",
                )
            if (rider := riding()) is not None:
                rider.is_judged = True
            return operator

        done = await decide_anew(lambda: apply_files(broker, wanted, who))
        changed, recorded = bool(done.plan), done.recorded
        planned = broker, done.plan, NEXT_TURN
        return await _answer(*planned, applied=changed, recorded=recorded)

    apart = "agents", "services", "limits"
    applying = Loosening(authority, calls.APPLY_FILES, FilesRequest, do_apply, apart)
    return [route(calls.FILES, show), route(calls.APPLY_FILES, apply)]


def _loosened(broker: Broker, plan: FilesPlan) -> Wanted:
    """Return the loosening of applying files: all of it is one change."""
    kinds, name_of = loosened(broker, plan), _names(broker, plan)
    counts = {
        "agents": len(plan.changes),
        "revoked": len(plan.pruned),
        "services": len(plan.edits.services),
        "limits": int(plan.edits.limits is not None),
        "list of names in files": int(plan.names is not None),
    }
    summary = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    services = plan.edits.services
    authorities = _authorities(broker, services)
    named = {
        "ca_file": [f"{path}: SHA-256 {sha}" for path, sha in authorities.items()],
        "origins": [f"{name}: {_origin(new)}" for name, (_, new) in services.items()],
        "agents revoked": [visible(one.name, 60) for one in plan.pruned],
        "agents accepted": [*plan.accepted.values()],
    }
    texts = [_agent_change(one, name_of) for one in plan.changes]
    texts += [
        text_change(f"services/{name}.toml", *pair) for name, pair in services.items()
    ]
    if plan.edits.limits:
        texts.append(text_change("limits.toml", *plan.edits.limits))
    return Wanted(
        kinds,
        f"apply files: {summary or 'nothing'}",
        "applied files",
        (
            *(f"agent:{one.before.id}" for one in plan.changes if one.before),
            *(f"agent:{one}" for one in sorted(_related(broker, plan))),
            *(f"agent:{one.id}" for one in plan.pruned),
            *(f"name:{one.after.name}" for one in plan.changes if not one.before),
            *(f"service:{name}" for name in plan.edits.services),
            *(f"ca_file:{path}" for path in authorities),
            *(("policy",) if plan.edits.limits else ()),
            *(("nothing",) if plan.only_names else ()),
        ),
        tuple(texts),
        {
            **counts,
            "digest": plan.digest,
            **{name: listed for name, listed in named.items() if listed},
        },
    )


def _authorities(broker: Broker, services: Mapping[str, TextEdit]) -> dict[str, str]:
    """Return the SHA-256 of each ``ca_file`` that applied services name, by its path.

    Each broker of a team has its own.
    """
    if broker.team.files is not None:
        return {}
    base = broker.home.config
    named = (named_files(text, base).values() for _, text in services.values())
    return {str(path): file_digest(path, base) for paths in named for path in paths}


def _related(broker: Broker, plan: FilesPlan) -> set[AgentId]:
    """Return the registered agents that delegates and templates of a plan name."""
    changed = {one.after.id for one in plan.changes}
    named = {to for one in plan.changes for to in one.receivers()} | {
        one.after.from_template for one in plan.changes if one.after.from_template
    }
    return {
        one for one in named - changed if broker.registry.find_agent(one) is not None
    }


def _agent_change(
    change: AgentChange, name_of: Callable[[AgentId], str]
) -> ChangedText:
    """Return an agent before and after as texts: one line a field and value."""

    def text(agent: Agent) -> str:
        entry = asdict(entry_of(agent, name_of))
        return "".join(f"{line}\n" for line in _lines(entry))

    before = text(change.before) if change.before else None
    return text_change(
        f"agent {in_full(change.after.name)}", before, text(change.after)
    )


def _lines(value: object, field: str = "") -> Iterator[str]:
    """Yield one line for each value, each with the names that lead to it."""
    if isinstance(value, dict):
        for name, one in value.items():
            shown = str(name) if not field else f"{field} {to_json(name)}"
            yield from _lines(one, shown)
    elif isinstance(value, tuple):
        for one in value:
            yield from _lines(one, field)
    elif value:
        yield f"{field} = {to_json(value)}"


def _origin(text: str | None) -> str:
    """Return where a service's file sends requests, for the person who approves it."""
    return visible(str(tomllib.loads(text or "").get("origin", "nowhere")), 200)


async def _answer(
    broker: Broker, plan: FilesPlan, turn: Turn, *, applied: bool, recorded: bool
) -> FilesAnswer:
    name_of, changes = _names(broker, plan), list[FileChange]()
    for number, one in enumerate(plan.changes, 1):
        if number % _A_TURN == 0:
            await turn()
        change = FileChange(
            kind="agent",
            name=one.after.name,
            id=one.after.id if applied or one.before else None,
            change="change" if one.before else "add",
            widens=one.widens,
            fields=tuple(_fields(one, name_of)),
        )
        changes.append(change)
    changes += [
        FileChange(
            kind="agent", name=one.name, id=one.id, change="revoke", widens=False
        )
        for one in plan.pruned
    ]
    edits = plan.edits
    changes += [_text_change("service", *pair) for pair in edits.services.items()]
    if edits.limits:
        changes.append(_text_change("limits", "limits.toml", edits.limits))
    return FilesAnswer(
        digest=plan.digest,
        applied=applied,
        recorded=recorded,
        changes=tuple(changes),
        gone=tuple(agent.name for agent in plan.gone),
        notes=plan.notes,
    )


def _names(broker: Broker, plan: FilesPlan) -> Callable[[AgentId], str]:
    new = {one.after.id: one.after for one in plan.changes}
    return lambda agent: (new.get(agent) or broker.registry.agent(agent)).name


def _text_change(
    kind: Literal["service", "limits"], name: str, edit: TextEdit
) -> FileChange:
    before, after = edit
    text = AgentFieldChange(field="text", before=before, after=after)
    change: Literal["add", "change"] = "add" if before is None else "change"
    return FileChange(kind=kind, name=name, change=change, widens=True, fields=(text,))


def _fields(
    change: AgentChange, name_of: Callable[[AgentId], str]
) -> Iterator[AgentFieldChange]:
    """Yield the fields that differ; of a new agent those that say something."""
    before = asdict(entry_of(change.before, name_of)) if change.before else {}
    for name, value in asdict(entry_of(change.after, name_of)).items():
        if value != before[name] if before else value:
            field = "from" if name == "from_template" else name
            yield AgentFieldChange(field=field, before=before.get(name), after=value)
