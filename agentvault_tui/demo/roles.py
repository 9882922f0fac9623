"""The six example roles: their scopes and their ordinary requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from agentvault_tui.demo.workspace import PEOPLE


@dataclass(frozen=True, slots=True)
class DemoAction:
    """One thing to do in the workspace, and the permission it takes."""

    scope: str
    resource: str
    method: str
    path: str
    reason: str
    body: dict[str, object] = field(default_factory=dict)
    implied: dict[str, object] = field(default_factory=dict)
    """Parameters the request itself implies, such as how many records it deletes."""
    connection: str = ""
    """Of the owner's account it is done with, by a provider's token; else none."""

    def details(self) -> list[dict[str, object]]:
        """Return the action as RFC 9396 authorization details."""
        return [
            {
                "type": "agentvault:action",
                "action": self.scope,
                "resource": self.resource,
                "parameters": {**self.implied, **self.body},
                "reason": self.reason,
            }
        ]


@dataclass(frozen=True, slots=True)
class AgentRole:
    """An example agent: who answers for it, what it may do, what it does."""

    name: str
    owner: str
    purpose: str
    scopes: tuple[str, ...]
    weight: float
    """Its share of all ordinary requests."""
    next_action: Callable[[Random], DemoAction]
    """Picks the next ordinary action."""
    keeps: int = 2
    """Tokens it holds on to before it hands the oldest back."""
    connection: str = ""
    """The provider at which it uses its owner's account, if it does."""

    @property
    def person(self) -> str:
        """The owner's user name at the tenant."""
        return self.owner.partition("@")[0]


WORKSPACE: Final = "workspace"
"""The connection whose provider is built into the embedded tenant."""
_TOPICS: Final = ("roadmap", "hiring", "budget", "launch", "incident 4412", "handover")


def booking(random: Random) -> DemoAction:
    """Book a meeting."""
    topic, person = random.choice(_TOPICS), random.choice(PEOPLE)
    start = f"2026-12-{random.randint(1, 20):02}T{random.randint(8, 17):02}:00Z"
    return DemoAction(
        "write:calendar",
        "calendar:primary",
        "POST",
        "/calendar/primary",
        f"{person} asked for a slot",
        {"title": f"{topic} with {person}", "start": start, "minutes": 30},
    )


def mail(random: Random) -> DemoAction:
    """Send a mail to a person or three."""
    people = random.sample(PEOPLE, random.randint(1, 3))
    return DemoAction(
        "send:email",
        "mail:outbox",
        "POST",
        "/mail/outbox",
        "answers a question from this morning",
        {
            "recipients": [f"{person}@acme.test" for person in people],
            "subject": f"Re: {random.choice(_TOPICS)}",
        },
    )


def bulk_mail() -> DemoAction:
    """Write to all customers at once."""
    return DemoAction(
        "send:email",
        "mail:outbox",
        "POST",
        "/mail/outbox",
        "price change, marketing wants it out today",
        {"recipients": 500, "list": "customers", "subject": "New prices from January"},
    )


def payment(invoice: int, amount: int) -> DemoAction:
    """Pay an invoice."""
    return DemoAction(
        "send:payment",
        "stripe:acct_42",
        "POST",
        "/accounts/acct_42",
        f"Invoice {invoice} is due today",
        {
            "amount": amount,
            "currency": "USD",
            "payee": "Northwind GmbH",
            "invoice": invoice,
        },
    )


def deletion(record: int) -> DemoAction:
    """Delete a customer record."""
    return DemoAction(
        "delete:records",
        f"crm:{record}",
        "DELETE",
        f"/records/{record}",
        "looks like a duplicate",
        implied={"count": 1},
    )


def lookup(random: Random) -> DemoAction:
    """Look someone up in the owner's address book at a provider."""
    return DemoAction(
        "read:contacts",
        "contacts",
        "GET",
        "/contacts",
        f"looks up {random.choice(PEOPLE)}",
        connection=WORKSPACE,
    )


def _calendar_action(random: Random) -> DemoAction:
    if random.random() < 0.35:
        return booking(random)
    path, why = "/calendar/primary", "looks for a slot"
    return DemoAction("read:calendar", "calendar:primary", "GET", path, why)


def _email_action(random: Random) -> DemoAction:
    if random.random() < 0.4:
        return mail(random)
    why = "looks for new mail"
    return DemoAction("read:email", "mail:inbox", "GET", "/mail/inbox", why)


def _finance_action(random: Random) -> DemoAction:
    if random.random() < 0.2:
        rows = "\n".join(f"2026-{n},{random.randint(60, 99)}000" for n in (10, 11, 12))
        return DemoAction(
            "write:files",
            "files:forecast.csv",
            "PUT",
            "/files/forecast.csv",
            "the forecast of the day",
            {"text": f"month,amount\n{rows}\n"},
            implied={"count": 1},
        )
    path, why = "/finance/2026-q4", "adds up the quarter"
    return DemoAction("read:finance", "finance:2026-q4", "GET", path, why)


def _payments_action(_random: Random) -> DemoAction:
    path, why = "/accounts/acct_42", "matches invoices"
    return DemoAction("read:payments", "stripe:acct_42", "GET", path, why)


def _records_action(random: Random) -> DemoAction:
    record = random.randint(1, 200)
    path, why = f"/records/{record}", "looks up a customer"
    return DemoAction("read:records", f"crm:{record}", "GET", path, why)


def _research_action(random: Random) -> DemoAction:
    file = random.choice(("market.md", "minutes.md", "forecast.csv"))
    path = f"/files/{file}"
    return DemoAction("read:files", f"files:{file}", "GET", path, "reads up")


ROLES: Final = (
    AgentRole(
        "calendar-agent",
        "alice@acme.test",
        "Finds slots and books meetings",
        ("read:calendar", "read:contacts", "write:calendar"),
        2.0,
        _calendar_action,
        keeps=60,
        connection=WORKSPACE,
    ),
    AgentRole(
        "email-agent",
        "alice@acme.test",
        "Answers routine mail",
        ("read:contacts", "read:email", "send:email"),
        2.0,
        _email_action,
        connection=WORKSPACE,
    ),
    AgentRole(
        "finance-agent",
        "bob@acme.test",
        "Keeps the forecast up to date",
        ("read:files", "read:finance", "write:files"),
        1.5,
        _finance_action,
    ),
    AgentRole(
        "payments-agent",
        "bob@acme.test",
        "Matches invoices and pays them",
        ("read:contacts", "read:payments", "send:payment"),
        1.0,
        _payments_action,
        connection=WORKSPACE,
    ),
    AgentRole(
        "records-agent",
        "carol@acme.test",
        "Looks up customers for support",
        ("read:records",),
        1.5,
        _records_action,
    ),
    AgentRole(
        "research-agent",
        "dave@acme.test",
        "Reads what the team writes",
        ("read:files",),
        1.0,
        _research_action,
    ),
)


def named_roles(count: int) -> list[tuple[str, AgentRole]]:
    """Name *count* agents: the six roles, then the same again with numbers."""
    named = []
    for number in range(count):
        turn, place = divmod(number, len(ROLES))
        role = ROLES[place]
        named.append((role.name if turn == 0 else f"{role.name}-{turn + 1}", role))
    return named
