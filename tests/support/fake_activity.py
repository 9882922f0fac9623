"""What a scripted broker counts of an agent: from its events, over a past."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from agentvault_tui.clock import iso

QUARTERS = 96
OUTCOMES = ("allowed", "denied", "escalated")


def activity_shape(
    agent: dict[str, Any],
    events: list[dict[str, Any]],
    stepups: list[dict[str, Any]],
    now: datetime,
    past: list[list[int]] | None = None,
) -> dict[str, Any]:
    """Count *events*; *past* is added to the day's quarters, an outcome a row."""
    start = now.replace(minute=now.minute // 15 * 15, second=0, microsecond=0)
    start -= timedelta(minutes=15 * (QUARTERS - 1))
    series = past or [[0] * QUARTERS for _ in OUTCOMES]
    series = [[int(number) for number in numbers] for numbers in series]
    mine = [e for e in events if e["agent_id"] == agent["id"] and e["outcome"]]
    by_scope: Counter[tuple[str, str]] = Counter()
    by_reason: Counter[str] = Counter()
    last: dict[object, str] = {}
    for event in mine:
        at = datetime.fromisoformat(event["time"])
        place = int((at - start).total_seconds() // 900)
        if 0 <= place < QUARTERS:
            series[OUTCOMES.index(event["outcome"])][place] += 1
        key = (event["action"], event["outcome"])
        by_scope[key] += 1
        last[key] = event["time"]
        if event["outcome"] == "denied":
            by_reason[event["reason"] or ""] += 1
            last[event["reason"]] = event["time"]
    if refused := sum(series[1]) - sum(by_reason.values()):
        by_reason["policy_forbids"] += refused
        last["policy_forbids"] = iso(now - timedelta(hours=8))
    asked = sorted({scope for scope, _ in by_scope} - set(agent["scopes"]))
    open_of = [
        s
        for s in stepups
        if s["agent_id"] == agent["id"] and s["status"] in {"pending", "authorizing"}
    ]
    return {
        "agent_id": agent["id"],
        "head": events[-1]["seq"] if events else 0,
        "scopes": [
            {
                "scope": scope,
                "granted": scope in agent["scopes"],
                **{word: by_scope[scope, word] for word in OUTCOMES},
                "redeemed": 0,
                "uses": by_scope[scope, "allowed"],
                "last_used_at": last.get((scope, "allowed")),
                "last_asked_at": max(
                    (last[scope, w] for w in OUTCOMES if (scope, w) in last),
                    default=None,
                ),
            }
            for scope in (*agent["scopes"], *asked)
        ],
        "denials": [
            {"reason": reason, "count": count, "last_at": last[reason]}
            for reason, count in by_reason.most_common()
        ],
        "quarters": {
            "start": iso(start),
            "seconds": 900,
            **dict(zip(OUTCOMES, series, strict=True)),
        },
        "revoke": {
            "tokens": len(agent["tokens"]),
            "elevated": sum(t["kind"] == "elevated" for t in agent["tokens"]),
            "stepups": len(open_of),
        },
    }
