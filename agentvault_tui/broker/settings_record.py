"""Record that ``config.toml`` changed who may change, approve or sign in."""

from __future__ import annotations

import json
from typing import Any, Final

from msgspec import to_builtins

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.riders import by_file
from agentvault_tui.ledger import Change, Meta
from agentvault_tui.model import ChangedText, Draft, EventType, sha256_hex

_KEY: Final = "settings_recorded"
_FILE: Final = "config.toml"


def settings_record(broker: Broker) -> tuple[list[Draft], list[Change]]:
    """Return the record of granting settings that the ledger lacks.

    They change by file only and count from a start on, so that each difference from the
    start before is recorded then, and counts as a loosening. A first start has none.

    Args:
        broker: the broker, with the settings it was started with.

    Returns:
        events, and rows that remember their subjects.
    """
    settings = broker.settings
    granting: dict[str, Any] = {
        "rules": [settings.stepup, settings.changes, settings.operators.roles],
        "issuers": settings.issuers,
        "connections": settings.connections,
    }
    now = {
        kind: sha256_hex(json.dumps(to_builtins(value), sort_keys=True))
        for kind, value in granting.items()
    }
    # Each home directory of a team has its own.
    key = f"{_KEY} {broker.team.id}" if broker.team else _KEY
    recorded = broker.kept.get(key)
    encoded = json.dumps(now)
    if recorded == encoded:
        return [], []
    before: dict[str, str] = json.loads(recorded) if recorded else now
    broker.kept[key] = encoded
    changed = [kind for kind in now if before.get(kind) != now[kind]]
    row = Meta(key, encoded)
    if not changed:
        return [], [row]
    texts = [
        ChangedText(f"{_FILE} ({kind})", before.get(kind), now[kind])
        for kind in changed
    ]
    detail = by_file(changed, *texts)
    draft = Draft(EventType.CHANGE_APPLIED, SYSTEM, resource=_FILE, detail=detail)
    return [draft], [row]
