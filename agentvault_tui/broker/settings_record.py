"""Record changes of ``config.toml`` to possible grants, grantors and holders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Final

from msgspec import to_builtins

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.riders import by_file
from agentvault_tui.home import Home
from agentvault_tui.ledger import Change, Meta
from agentvault_tui.ledger.schema import read_home
from agentvault_tui.ledger.state import read_meta
from agentvault_tui.model import ChangedText, Draft, EventType, sha256_hex
from agentvault_tui.settings import NAMED, Settings

SETTINGS: Final = "settings_recorded"
"""Row of the last start's settings; with a broker's id behind it, of one of a team."""
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
OF_A_MACHINE: Final = frozenset(
    {
        *(
            f"{section}.{one}"
            for section in ("operators", "tenant")
            for one in ("listen", "url", "tls_cert", "tls_key")
        ),
        *("broker.tls", "broker.tls_cert", "broker.tls_key"),
        *("broker.trusted_proxies", "policy.country_database"),
        *("tenant.domain", "store.url"),
    }
)
"""Addresses and paths: brokers of a team may have different ones."""


def settings_record(broker: Broker) -> tuple[list[Draft], list[Change]]:
    """Return the record of granting settings that the ledger lacks.

    They change by file only and count from a start on, so that each difference from the
    start before is recorded then, and counts as a loosening. A broker without a start
    before is compared with the others of its store: who can edit ``config.toml`` can
    remove ``broker.id``. The first start of all has no record.

    Args:
        broker: the broker, with the settings it was started with.

    Returns:
        events, and rows that remember their subjects.
    """
    now, rows = dict(_digests(broker.settings)), _recorded(broker)
    # Each home directory of a team has its own.
    key = _key_of(broker.team.brokers.id) if broker.team.brokers.id else SETTINGS
    encoded, own = json.dumps(now), rows.pop(key, None)
    if own is not None and broker.recording.meta[key] == encoded:
        return [], []
    broker.recording.meta[key] = encoded
    row = Meta(key, encoded)
    changed = dict[str, str | None]()
    for before in [*rows.values()] if own is None else [own]:
        changed |= _differing(before, now)
    if not changed:
        return [], [row]
    texts = [
        ChangedText(f"{_FILE} ({name})", changed[name], now[name])
        for name in now
        if name in changed
    ]
    kinds = sorted({KIND_OF[name.partition(".")[0]] for name in changed})
    detail = by_file(kinds, *texts)
    new = "a new broker, whose settings differ from those of another broker"
    draft = Draft(
        EventType.CHANGE_APPLIED,
        SYSTEM,
        resource=_FILE,
        reason=new if own is None else None,
        detail=detail,
    )
    return [draft], [row]


def differing_settings(broker: Broker, broker_id: str) -> list[str]:
    """Return the granting settings of another broker of the team that differ.

    Args:
        broker: this broker.
        broker_id: the other one.

    Returns:
        their names; none if that broker has recorded no settings, and none of
        `OF_A_MACHINE`.
    """
    here = broker.team.brokers.id
    theirs, ours = (
        broker.recording.meta.get(_key_of(one)) for one in (broker_id, here)
    )
    if theirs is None or ours is None or theirs == ours:
        return []
    differing = _differing(json.loads(theirs), json.loads(ours))
    return sorted(differing.keys() - OF_A_MACHINE)


def last_start(home: Home) -> Callable[[str, object], bool]:
    """Return a check of the settings of a home's last start, while no broker runs.

    The environment of a command may differ from that of the broker.

    Args:
        home: the home directory of one broker; a team has its settings in its store.

    Returns:
        whether a setting, by name, had a value at that start; never, if there was none.
    """
    row = None
    if home.database.exists():
        with read_home(home) as db:
            row = read_meta(db, SETTINGS)
    recorded: dict[str, str] = {} if row is None else json.loads(row)
    return lambda name, value: recorded.get(name) == _digest(value)


def _key_of(broker_id: str) -> str:
    return f"{SETTINGS} {broker_id}"


def _recorded(broker: Broker) -> dict[str, dict[str, str]]:
    """Return the digests that brokers of this store recorded, by the key of the row."""
    return {
        key: json.loads(row)
        for key, row in broker.recording.meta.items()
        if key.partition(" ")[0] == SETTINGS
    }


def _differing(
    before: Mapping[str, str], now: Mapping[str, str]
) -> dict[str, str | None]:
    """Return the digest before of each setting that has another one now."""
    # A setting that an earlier version did not record had its default then.
    known_before = {**dict(_digests(Settings())), **before}
    return {
        name: known_before.get(name)
        for name, value in now.items()
        if known_before.get(name) != value
    }


def _digest(value: object) -> str:
    return sha256_hex(json.dumps(to_builtins(value), sort_keys=True))


def _digests(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that is recorded, and the SHA-256 of its value."""
    for section in fields(settings):
        values = getattr(settings, section.name)
        if section.name in NAMED:
            yield section.name, _digest(values)
            continue
        for item in fields(values):
            name = f"{section.name}.{item.name}"
            if name not in HARMLESS:
                yield name, _digest(getattr(values, item.name))
