"""Print that a broker is ready: one line for programs, two for a person."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from agentvault_tui.broker.core import Broker
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.text import visible


def announce(
    broker: Broker, agents_url: str, socket: Path, more: Mapping[str, object]
) -> None:
    """Print where the broker serves agents and operators.

    The first line of stdout is JSON, for the program that started it. If stdout is a
    terminal, two sentences follow on stderr.

    Args:
        broker: the broker that is ready.
        agents_url: the URL for agents.
        socket: the socket for operators.
        more: members for other listeners.
    """
    line: dict[str, object] = {
        "agents_url": agents_url,
        "operator_socket": str(socket),
        "tenant": broker.reaching.tenant.issuer,
        "pid": os.getpid(),
        **more,
    }
    print(json.dumps(line), flush=True)  # noqa: T201 - the contract's first line
    if sys.stdout.isatty():
        served = f"AgentVault serves agents at {agents_url}, operators at {socket}."
        for text in (served, _next_step(broker)):
            print(visible(text, 1000), file=sys.stderr, flush=True)  # noqa: T201 - same


def _next_step(broker: Broker) -> str:
    """Return a sentence with the next command, for another terminal."""
    program = "agentvault"
    try:
        usual = Home.locate().data == broker.home.data
    except SettingsError:
        usual = False
    if not usual:
        program += f" --home {shlex.quote(str(broker.home.data))}"
    step, command = "open the console", ""
    if not broker.registry.agents():
        step, command = "register an agent", " agents add NAME --owner WHO"
        if broker.reaching.kind == "embedded":
            step, command = "add an approver", " tenant user add NAME --approver"
    return f"Next, in another terminal, {step}: {program}{command}"
