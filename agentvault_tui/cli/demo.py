"""``agentvault demo``: run broker, tenant, workspace API and example agents."""

from __future__ import annotations

import click

from agentvault_tui.cli.framework import command, link_option, pass_session
from agentvault_tui.cli.session import CliSession
from agentvault_tui.cli.terminal import require_screen


@command(
    "demo",
    on_home=True,
    example="agentvault demo --headless --for 20",
    prints_data=False,
)
@click.option("--agents", default=6, show_default=True, help="How many agents.")
@click.option(
    "--rate", default=5.0, show_default=True, help="Decisions a second, all together."
)
@click.option(
    "--headless", is_flag=True, help="No console; print the counts at the end."
)
@click.option("--for", "seconds", type=float, help="Seconds to run.")
@link_option
@pass_session
def demo(
    session: CliSession, agents: int, rate: float, headless: bool, seconds: float | None
) -> int:
    """Run tenant, broker, workspace API and agents, and open the console on them.

    The home is a temporary one, removed at the end, unless --home names one.
    """
    if not headless:
        require_screen()
    from agentvault_tui.demo import run

    return run(
        home=str(session.home.data) if session.home_option else None,
        agents=agents,
        rate=rate,
        headless=headless,
        seconds=seconds,
        link=session.link,
    )
