"""The six example roles: their scopes and their ordinary requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from agentvault_tui.demo.workspace import PEOPLE


@dataclass(frozen=True, slots=True)
class DemoAction:
    """One request through the gateway; its route says which permission it takes."""

    method: str
    path: str
    """The service, and the path at it."""
    body: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentRole:
    """An example agent: its owner, its permissions, its actions."""

    name: str
    owner: str
    purpose: str
    scopes: tuple[str, ...]
    weight: float
    """Its share of all ordinary requests."""
    next_action: Callable[[Random], DemoAction]
    """Picks the next ordinary action."""
    writes: tuple[str, ...] = ()
    """The scopes that policy puts into its token next to those to read."""
    connection: str = ""
    """The provider at which it uses its owner's account, if it does."""

    @property
    def token_scope(self) -> str:
        """The scope of its token; actions that may need a person are not in it."""
        reads = (scope for scope in self.scopes if scope.startswith("read:"))
        return " ".join((*reads, *self.writes))

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
        "POST",
        "workspace/calendar/primary",
        {"title": f"{topic} with {person}", "start": start, "minutes": 30},
    )


def mail(random: Random) -> DemoAction:
    """Send a mail to a person or three."""
    people = random.sample(PEOPLE, random.randint(1, 3))
    return DemoAction(
        "POST",
        "workspace/mail/outbox",
        {
            "recipients": [f"{person}@acme.test" for person in people],
            "subject": f"Re: {random.choice(_TOPICS)}",
        },
    )


def bulk_mail() -> DemoAction:
    """Write to all customers at once."""
    return DemoAction(
        "POST",
        "workspace/mail/outbox",
        {"recipients": 500, "list": "customers", "subject": "New prices from January"},
    )


def payment(invoice: int, amount: int) -> DemoAction:
    """Pay an invoice."""
    return DemoAction(
        "POST",
        "workspace/accounts/acct_42",
        {
            "amount": amount,
            "currency": "USD",
            "payee": "Northwind GmbH",
            "invoice": invoice,
        },
    )


def deletion(record: int) -> DemoAction:
    """Delete a customer record."""
    return DemoAction("DELETE", f"workspace/records/{record}")


def download() -> DemoAction:
    """Fetch everything the team ever wrote, which takes minutes."""
    return DemoAction("GET", "workspace/files/export.zip")


def search() -> DemoAction:
    """Look through the calendar."""
    return DemoAction("GET", "workspace/calendar/primary")


def lookup() -> DemoAction:
    """Look into the owner's address book at a provider."""
    return DemoAction("GET", "contacts/contacts")


def _calendar_action(random: Random) -> DemoAction:
    if random.random() < 0.35:
        return booking(random)
    return search()


def _email_action(random: Random) -> DemoAction:
    if random.random() < 0.4:
        return mail(random)
    return DemoAction("GET", "workspace/mail/inbox")


def _finance_action(random: Random) -> DemoAction:
    if random.random() < 0.2:
        rows = "\n".join(f"2026-{n},{random.randint(60, 99)}000" for n in (10, 11, 12))
        body: dict[str, object] = {"text": f"month,amount\n{rows}\n"}
        return DemoAction("PUT", "workspace/files/forecast.csv", body)
    return DemoAction("GET", "workspace/finance/2026-q4")


def _payments_action(_random: Random) -> DemoAction:
    return DemoAction("GET", "workspace/accounts/acct_42")


def _records_action(random: Random) -> DemoAction:
    return DemoAction("GET", f"workspace/records/{random.randint(1, 200)}")


def _research_action(random: Random) -> DemoAction:
    file = random.choice(("market.md", "minutes.md", "forecast.csv"))
    return DemoAction("GET", f"workspace/files/{file}")


ROLES: Final = (
    AgentRole(
        "calendar-agent",
        "alice@acme.test",
        "Finds slots and books meetings",
        ("read:calendar", "read:contacts", "write:calendar"),
        2.0,
        _calendar_action,
        ("write:calendar",),
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
