"""``agentvault backup`` and ``restore``: a home in one file."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentvault_tui.cli.framework import FILE, command, pass_session
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import NotFoundError
from agentvault_tui.home import Home

if TYPE_CHECKING:
    from agentvault_tui.broker.backup import Manifest


@command(
    "backup", on_home=True, example="agentvault backup /var/backups/agentvault-monday"
)
@click.argument("file", type=FILE)
@pass_session
def backup(session: CliSession, file: Path) -> None:
    """Write the home directory to FILE, mode 0600, as it is at one moment.

    Works with and without a running broker. In a team it has everything that the store
    had. FILE contains keys: protect it like the home directory. It does not contain
    keys that systemd provides.
    """
    from agentvault_tui.broker.backup import make_backup

    home, settings, clock = session.home, session.settings, SystemClock()
    if not settings.store.url:
        made = make_backup(home, file.absolute(), clock)
    else:
        from agentvault_tui.cli.store import connector_of
        from agentvault_tui.ledger.store_admin import store_info
        from agentvault_tui.settings import Settings
        from agentvault_tui.tenant.copying import copy_tenant

        least = asyncio.run(store_info(connector_of(session))).head
        with tempfile.TemporaryDirectory(prefix="agentvault-") as folder:
            passing = Home(Path(folder) / "home", Path(folder) / "home")
            copy_tenant((home, settings), (passing, Settings()), anew=False)
            tenant = passing.tenant / "tenant.db"
            made = make_backup(home, file.absolute(), clock, least=least, tenant=tenant)
    result = {"file": str(file), "bytes": file.stat().st_size, **_summary(made)}
    if not session.out.print_json(result):
        session.out.line(f"the home up to event {made.seq} in ", session.out.cell(file))
        session.out.line(session.out.cell(made.hash, "quiet"))


@command(
    "restore", on_home=True, example="agentvault restore /var/backups/agentvault-monday"
)
@click.argument("file", type=FILE)
@pass_session
def restore(session: CliSession, file: Path) -> None:
    """Restore the backup FILE into an empty home directory; everything is stopped.

    All tokens are revoked, all step-ups cancelled, and nothing is granted until
    `agentvault lift-panic`, because FILE does not have your later revocations. If its
    settings name a team's store, that must be prepared and empty; it gets the ledger.
    """
    from agentvault_tui.broker.restore import restore_backup
    from agentvault_tui.tenant.copying import into_team

    home = Home.locate(session.home_option)
    if not os.path.lexists(file):
        raise NotFoundError(
            f"there is no backup file {file}",
            f"to serve an agent again: agentvault restore-agent {file.name}",
        )
    made, head = restore_backup(
        home, file.absolute(), SystemClock(), session.operator, into_team
    )
    result = {"home": str(home.data), "head": head.seq, "hash": head.hash}
    if not session.out.print_json({**result, "from": _summary(made)}):
        out = session.out
        out.line("the home ", out.cell(home.data), f" continues at event {head.seq}")
        out.line(f"from the backup of {made.made_at}, up to event {made.seq}")
        out.note(
            "everything is stopped: remove again the people that you removed since"
            " the backup (agentvault tenant user list), start the broker, revoke or"
            " remove again all else that you ended since, then agentvault lift-panic"
        )
        if os.environ.get("AGENTVAULT_STORE_URL"):
            out.note("before that, write the new store.url into its config.toml")


def _summary(made: Manifest) -> dict[str, object]:
    return {
        "ledger": made.ledger,
        "head": made.seq,
        "hash": made.hash,
        "made_at": made.made_at,
        "version": made.version,
    }
