"""Agents, tokens, step-ups and their like as JSON text and back, exactly."""

from __future__ import annotations

import json
from datetime import datetime
from sys import intern
from typing import Any

from agentvault_tui.clock import Deadline, iso, parse_iso
from agentvault_tui.encoder import to_json
from agentvault_tui.ledger.records import Cooldown, OutboxStep, Panic
from agentvault_tui.model import (
    Account,
    Agent,
    AgentId,
    AgentStatus,
    Credential,
    DecisionId,
    Evidence,
    IssuedProviderToken,
    Lease,
    Risk,
    StepUp,
    StepUpId,
    StepUpStatus,
    Token,
    TokenId,
    TokenKind,
)


def write_agent(agent: Agent) -> str:
    """Return *agent* as text."""
    return to_json(
        {
            "id": agent.id,
            "client_id": agent.client_id,
            "name": agent.name,
            "owner": agent.owner,
            "purpose": agent.purpose,
            "scopes": agent.scopes,
            "created_at": iso(agent.created_at),
            "status": agent.status,
            "resource_server": agent.resource_server,
            "serves": agent.serves,
            "resources": agent.resources,
            "secret_sha256": agent.credential.secret_sha256,
            "public_key": agent.credential.public_key,
            "revoked_at": _moment(agent.revoked_at),
        }
    )


def read_agent(doc: str) -> Agent:
    """Return the agent `write_agent` wrote."""
    value = json.loads(doc)
    return Agent(
        id=AgentId(intern(value["id"])),
        client_id=value["client_id"],
        name=value["name"],
        owner=value["owner"],
        purpose=value["purpose"],
        scopes=tuple(value["scopes"]),
        created_at=parse_iso(value["created_at"]),
        status=AgentStatus(value["status"]),
        resource_server=value["resource_server"],
        # Older versions wrote neither.
        serves=tuple(value.get("serves", ())),
        resources=tuple(value.get("resources", ())),
        credential=Credential(value["secret_sha256"], value["public_key"]),
        revoked_at=_parse(value["revoked_at"]),
    )


def write_token(token: Token, ends: str) -> str:
    """Return *token*, which *ends* then, as text; its secret was never in it."""
    expires = token.expires
    head = to_json(
        [
            token.sha256,
            token.scope,
            token.kind.value,
            iso(token.issued_at),
            ends,
            expires.boot,
            expires.boot_id,
        ]
    )
    once = [token.decision_id] if token.single_use else []
    tail = to_json([token.resource, token.stepup_id, *once])
    return f"{head[:-1]},{token.authorization_details or 'null'},{tail[1:]}"


def token_scopes(doc: str) -> frozenset[str]:
    """Return the scopes of the token `write_token` wrote."""
    return frozenset(json.loads(doc)[1].split())


def read_token(token_id: str, agent_id: str, doc: str) -> Token:
    """Return the token `write_token` wrote.

    What very many tokens have alike is one string in memory for all of them.
    """
    sha256, scope, kind, issued_at, wall, boot, boot_id, *told = json.loads(doc)
    details, resource, stepup, *once = told
    return Token(
        id=TokenId(token_id),
        sha256=sha256,
        agent_id=AgentId(intern(agent_id)),
        scope=intern(scope),
        kind=TokenKind(kind),
        issued_at=parse_iso(issued_at),
        expires=Deadline(parse_iso(wall), boot, intern(boot_id)),
        authorization_details=None if details is None else to_json(details),
        resource=resource,
        stepup_id=None if stepup is None else StepUpId(stepup),
        single_use=bool(once),
        decision_id=DecisionId(once[0]) if once and once[0] else None,
    )


def write_stepup(stepup: StepUp) -> str:
    """Return *stepup* as text.

    Its device code is left out: whoever reads a live user code can enter it (RFC 8628
    section 5.4), and no device flow outlives its process.
    """
    who = stepup.decided_by
    plain = (
        "id agent_id agent_name scope action resource reason rule why risk "
        "policy_version nonce digest decision_id ttl count status problem denial "
        "resource_indicator connection"
    )
    value: dict[str, object] = {name: getattr(stepup, name) for name in plain.split()}
    value["requested_at"] = iso(stepup.requested_at)
    value["expires"] = _deadline(stepup.expires)
    value["decided_at"] = _moment(stepup.decided_at)
    value["begun_at"] = _moment(stepup.begun_at)
    value["redeemed_at"] = _moment(stepup.redeemed_at)
    value["fetched_at"] = _moment(stepup.fetched_at)
    value["decided_by"] = who and [who.sub, who.name, who.amr, _moment(who.auth_time)]
    details = stepup.authorization_details or "null"
    return (
        f'{to_json(value)[:-1]},"parameters":{stepup.parameters_json}'
        f',"authorization_details":{details}'
        + (f',"request":{stepup.request_json}}}' if stepup.request_json else "}")
    )


def read_stepup(doc: str) -> StepUp:
    """Return the step-up `write_stepup` wrote."""
    value = json.loads(doc)
    who = value["decided_by"]
    details = value.get("authorization_details")
    value |= {
        "authorization_details": None if details is None else to_json(details),
        "parameters_json": to_json(value.pop("parameters")),
        "request_json": to_json(value.pop("request")) if "request" in value else None,
        "id": StepUpId(value["id"]),
        "agent_id": AgentId(value["agent_id"]),
        "decision_id": DecisionId(value["decision_id"]),
        "risk": Risk(value["risk"]),
        "status": StepUpStatus(value["status"]),
        "requested_at": parse_iso(value["requested_at"]),
        "expires": _read_deadline(value["expires"]),
        "decided_at": _parse(value["decided_at"]),
        # Older versions wrote neither.
        "begun_at": _parse(value.get("begun_at")),
        "redeemed_at": _parse(value.get("redeemed_at")),
        "fetched_at": _parse(value.get("fetched_at")),
        "decided_by": who and Evidence(who[0], who[1], tuple(who[2]), _parse(who[3])),
        "device": None,  # older versions wrote it
    }
    return StepUp(**value)


def write_panic(panic: Panic) -> str:
    """Return *panic* as text."""
    return to_json([panic.on, iso(panic.since), panic.by, panic.reason])


def read_panic(doc: str) -> Panic:
    """Return the panic `write_panic` wrote."""
    on, since, by, reason = json.loads(doc)
    return Panic(on, parse_iso(since), by, reason)


def write_cooldown(cooldown: Cooldown) -> str | None:
    """Return *cooldown* as text; None when there is nothing to remember."""
    if cooldown.until is None:
        return None
    return to_json([cooldown.denials, *_deadline(cooldown.until)])


def read_cooldown(agent_id: str, doc: str) -> Cooldown:
    """Return the cool-down `write_cooldown` wrote."""
    denials, *until = json.loads(doc)
    return Cooldown(AgentId(agent_id), denials, _read_deadline(until))


def write_account(account: Account) -> str:
    """Return *account* as text."""
    return to_json(
        [
            account.id,
            account.issuer,
            account.user,
            account.user_name,
            account.scopes,
            iso(account.since),
            account.removing,
            account.provider_user,
        ]
    )


def read_account(key: str, doc: str) -> Account:
    """Return the account `write_account` wrote."""
    agent_id, _, connection = key.partition(" ")
    account_id, issuer, user, user_name, scopes, since, removing, *more = json.loads(
        doc
    )
    return Account(
        AgentId(agent_id),
        connection,
        account_id,
        issuer,
        user,
        user_name,
        tuple(scopes),
        parse_iso(since),
        removing=removing,
        provider_user=more[0] if more else "",  # older versions wrote none
    )


def write_lease(lease: Lease) -> str | None:
    """Return *lease* as text; None when there is nothing to remember."""
    given = [[one.account_id, one.thumbprint, iso(one.until)] for one in lease.given]
    return to_json(given) if given else None


def read_lease(key: str, doc: str) -> Lease:
    """Return the lease `write_lease` wrote; older versions wrote its end alone."""
    agent_id, _, connection = key.partition(" ")
    rows = json.loads(doc) if doc.startswith("[") else [["", "", doc]]
    given = (
        IssuedProviderToken(account, token, parse_iso(until))
        for account, token, until in rows
    )
    return Lease(AgentId(agent_id), connection, tuple(given))


def write_outbox(step: OutboxStep) -> str:
    """Return an outbox row as text."""
    return to_json(
        [
            step.agent_id,
            step.step,
            iso(step.begun_at),
            step.attempts,
            _moment(step.next_at),
            step.ms,
            step.problem,
            step.users,
            step.connection,
        ]
    )


def read_outbox(step_id: str, status: Any, doc: str) -> OutboxStep:
    """Return the row `write_outbox` wrote."""
    agent_id, step, begun_at, attempts, next_at, ms, problem, users, *more = json.loads(
        doc
    )
    return OutboxStep(
        id=step_id,
        agent_id=AgentId(agent_id),
        step=step,
        begun_at=parse_iso(begun_at),
        status=status,
        attempts=attempts,
        next_at=_parse(next_at),
        ms=ms,
        problem=problem,
        users=tuple(users),
        connection=more[0] if more else "",  # older versions wrote none
    )


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)


def _parse(text: str | None) -> datetime | None:
    return None if text is None else parse_iso(text)


def _deadline(deadline: Deadline) -> list[object]:
    return [iso(deadline.wall), deadline.boot, deadline.boot_id]


def _read_deadline(value: list[Any]) -> Deadline:
    wall, boot, boot_id = value
    return Deadline(parse_iso(wall), boot, boot_id)
