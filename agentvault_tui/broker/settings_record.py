"""Record changes of ``config.toml`` to possible grants, grantors and holders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final

from msgspec import to_builtins

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.riders import by_file
from agentvault_tui.ledger import Change, Meta
from agentvault_tui.model import ChangedText, Draft, EventType, sha256_hex
from agentvault_tui.settings import NAMED, Settings

_KEY: Final = "settings_recorded"
_FILE: Final = "config.toml"
KIND_OF: Final = {
    "broker": "policy",
    "policy": "policy",
    "tokens": "tokens",
    "ledger": "limits",
    "delegation": "agents",
    "stepup": "rules",
    "changes": "rules",
    "tenant": "people",
    "operators": "rules",
    "store": "team",
    "team": "team",
    "gateway": "services",
    "connections": "connections",
    "issuers": "issuers",
}
"""The kind of `CHANGE_KINDS` that a change of a section loosens."""
HARMLESS: Final = frozenset(
    {
        *(f"console.{one}" for one in ("theme", "link", "mouse", "label", "ascii")),
        # Loopback only: `settings` refuses other addresses.
        *("broker.listen", "broker.metrics", "broker.metrics_by_agent"),
        *("gateway.proxy", "gateway.hook_wait", "gateway.hold_bytes"),
        *("policy.advice_window", "store.pool", "tenant.rate"),
        # Read by commands on an operator's own machine, and by no broker.
        *("operators.connect", "operators.ca_file"),
    }
)
"""Settings that grant nothing, to any person or agent: they are not recorded."""


def settings_record(broker: Broker) -> tuple[list[Draft], list[Change]]:
    """Return the record of granting settings that the ledger lacks.

    They change by file only and count from a start on, so that each difference from the
    start before is recorded then, and counts as a loosening. A first start has none.

    Args:
        broker: the broker, with the settings it was started with.

    Returns:
        events, and rows that remember their subjects.
    """
    now = dict(_digests(broker.settings))
    # Each home directory of a team has its own.
    key = f"{_KEY} {broker.team.id}" if broker.team else _KEY
    recorded = broker.kept.get(key)
    encoded = json.dumps(now)
    if recorded == encoded:
        return [], []
    broker.kept[key] = encoded
    row = Meta(key, encoded)
    if recorded is None:
        return [], [row]
    # A setting that an earlier version did not record had its default then.
    before = {**dict(_digests(Settings())), **json.loads(recorded)}
    changed = [name for name in now if before.get(name) != now[name]]
    if not changed:
        return [], [row]
    texts = [
        ChangedText(f"{_FILE} ({name})", before.get(name), now[name])
        for name in changed
    ]
    kinds = sorted({KIND_OF[name.partition(".")[0]] for name in changed})
    detail = by_file(kinds, *texts)
    draft = Draft(EventType.CHANGE_APPLIED, SYSTEM, resource=_FILE, detail=detail)
    return [draft], [row]


def _digests(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that is recorded, and the SHA-256 of its value."""

    def digest(value: Any) -> str:
        return sha256_hex(json.dumps(to_builtins(value), sort_keys=True))

    for section in fields(settings):
        values = getattr(settings, section.name)
        if section.name in NAMED:
            yield section.name, digest(values)
            continue
        for item in fields(values):
            name = f"{section.name}.{item.name}"
            if name not in HARMLESS:
                yield name, digest(getattr(values, item.name))
