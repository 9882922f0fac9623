"""Killed at any moment, the broker keeps every decision it acknowledged."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import httpx
from support.vault import Client, serving

KILLS = int(os.environ.get("AGENTVAULT_TEST_KILLS", "4"))


def test_every_acknowledged_decision_survives_kill_9(home: Path) -> None:
    """After each of several random kills all answers given are in a valid ledger.

    ``AGENTVAULT_TEST_KILLS=200`` runs as many as a release does.
    """
    chance = random.Random(7)  # noqa: S311 - moments to kill at, not secrets
    agent: Client | None = None
    answered: list[str] = []
    for _ in range(KILLS):
        with serving(home, tenant=False) as vault:
            agent = (
                vault.again(agent) if agent else vault.register("cal", "write:calendar")
            )
            enough = threading.Event()
            wanted = len(answered) + chance.randrange(1, 120)

            def ask(client: Client, wanted: int, enough: threading.Event) -> None:
                try:
                    while True:
                        answer = client.token("write:calendar").json()
                        answered.append(answer["decision_id"])
                        if len(answered) >= wanted:
                            enough.set()
                except httpx.HTTPError:
                    enough.set()

            askers = [
                threading.Thread(target=ask, args=(agent, wanted, enough))
                for _ in range(8)
            ]
            for asker in askers:
                asker.start()
            assert enough.wait(60)
            vault.kill()
            for asker in askers:
                asker.join()
    with serving(home, tenant=False) as vault:
        assert vault.cli("audit", "verify").returncode == 0
        kept = set()
        after: int | None = 0
        while after is not None:
            query = {"after": after, "limit": 1000, "type": "token.decision"}
            page = vault.operator.get("/api/audit", params=query).json()
            kept |= {event["decision_id"] for event in page["events"]}
            after = page["next"]
        assert set(answered) <= kept
