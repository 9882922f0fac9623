"""What whoever is at the socket may do: their uid, and their role once signed in.

The socket is one user's own, and the kernel says whose; that was the check before
roles, and it stays the check of whoever is not signed in, with one exception. Each
rule below follows from two sentences: cutting off is free, granting costs.

* Signed in with a role, the role decides: `Role` says what includes what.
* With no role (not signed in, a session that ended, a tenant that names none):

  * *cutting* (revoke, panic, deny, take scopes away) needs the socket alone. A cut
    must never wait for a phone, a tenant or a clock: a session locks after fifteen
    idle minutes, which is when an operator who only watched has to cut. A refusal
    would guard nothing either, as whoever holds this socket can kill the broker. A
    cut can be undone, by whoever may, and is recorded under the local user.
  * *giving* (restore, register, give scopes, lift the panic) needs the socket alone
    where roles are ``auto``, and is refused where they are ``claim``.
  * *changing people* of the embedded tenant needs the socket alone where roles are
    ``auto``, and the role approver where they are ``claim``, once anybody has it: who
    can make an approver can approve.
  * *approving* may be begun: what counts is the role of the person who then proves a
    second factor, fresh from the tenant. See `approvers`.

So a viewer who signs out has the right to cut again, as every local user has: roles
bind the person, and the socket's mode binds who gets near it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.sessions import Session, Sessions
from agentvault_tui.errors import ForbiddenError
from agentvault_tui.model import Actor, ActorKind, Draft, EventType
from agentvault_tui.model.role import Role, role_of
from agentvault_tui.text import visible


class Need(StrEnum):
    """Kinds of decisions, by what they do to an agent's reach."""

    CUT = "revoke"
    GIVE = "restore"
    APPROVE = "approve"
    PEOPLE = "people"


_ROLES: Final = {
    Need.CUT: Role.OPERATOR,
    Need.GIVE: Role.OPERATOR,
    Need.APPROVE: Role.APPROVER,
    Need.PEOPLE: Role.APPROVER,
}
_DEEDS: Final = {
    Need.CUT: "cutting off",
    Need.GIVE: "restoring, registering or giving scopes",
    Need.APPROVE: "approving",
    Need.PEOPLE: "changing the tenant's people",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Who a local user is to us now."""

    session: Session | None
    role: Role | None
    refused: dict[Need, str]
    """What they may not do, each with the reason."""


class Authority:
    """Judges every decision that comes over the operators' socket."""

    def __init__(self, broker: Broker, sessions: Sessions) -> None:
        self._broker = broker
        self._sessions = sessions
        self._by_claim = broker.settings.operators.by_claim

    def standing(self, uid: str) -> Standing:
        """Return who *uid* is now; asking is no use of the session."""
        session = self._sessions.of(uid)
        role = role_of(session.identity.roles) if session else None
        refused = {
            need: f"{_DEEDS[need]} needs the role {_ROLES[need]}; {_who(session, role)}"
            for need in Need
            if not self._allowed(need, role)
        }
        return Standing(session, role, refused)

    async def actor(self, operator: Actor, need: Need, about: str) -> Actor:
        """Return who decides, as the record shall name them.

        Args:
            operator: the local user who asks.
            need: what kind of decision.
            about: what it is about, for the record of a refusal; nobody checked it.

        Raises:
            ForbiddenError: their role is not enough, and that is on record.
            LedgerError: it is not enough, and that could not be recorded.
        """
        found = self.standing(operator.id)
        actor = self.named(operator)
        if need in found.refused:
            why, role = found.refused[need], _ROLES[need].value
            draft = Draft(
                EventType.OPERATOR_REFUSED,
                actor,
                action=need.value,
                resource=visible(about, 120),
                reason=why,
                detail={"uid": operator.id, "needed_role": role},
            )
            await self._broker.record(draft)
            raise ForbiddenError(role, why, "agentvault login, as someone who has it")
        if found.session is not None:
            self._sessions.used(operator.id)
        return actor

    def named(self, operator: Actor) -> Actor:
        """Return who is signed in at *operator*'s seat, or *operator*."""
        session = self._sessions.of(operator.id)
        if session is None:
            return operator
        return Actor(ActorKind.OPERATOR, session.identity.sub, session.identity.name)

    def _allowed(self, need: Need, role: Role | None) -> bool:
        if need is Need.PEOPLE and not self._by_claim:
            return True
        if role is not None:
            return role.includes(_ROLES[need])
        return need in {Need.CUT, Need.APPROVE} or not self._by_claim


def _who(session: Session | None, role: Role | None) -> str:
    if session is None:
        return "nobody is signed in here"
    name = visible(session.identity.name, 60)
    return f"{name} is {role}" if role else f"the tenant gives {name} none"
