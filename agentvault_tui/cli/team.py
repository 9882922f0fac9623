"""``agentvault team``: the key that encrypts the shared data of a team's brokers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from agentvault_tui.cli.framework import FILE, group, pass_session
from agentvault_tui.cli.offline import check_factor, loosened_here
from agentvault_tui.cli.output import confirm
from agentvault_tui.cli.session import CliSession, sign_in_needed
from agentvault_tui.errors import (
    RefusedError,
    SettingsError,
    UnreachableError,
    UsageError,
)
from agentvault_tui.home import locked_folder, put_private, read_own
from agentvault_tui.model import Draft
from agentvault_tui.model.event import LOOSENED
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.access import TeamKeyInfo
from agentvault_tui.operator_api.requests import TeamKeyRequest
from agentvault_tui.sealing import (
    EXPORT_BYTES,
    MOST_KEYS,
    SHORTEST_PASSPHRASE,
    decode_keys,
    encode_keys,
    key_ids,
    read_keys,
    team_keys,
)

_PASSPHRASE_BYTES: Final = 1024
_passphrase_file = click.option(
    "--passphrase-file",
    metavar="FILE",
    help="Read the passphrase from FILE, mode 0600, or - for standard input.",
)


@group("team", on_home=True, example="agentvault team key export team-key.json")
def team() -> None:
    """Manage the key that the brokers of a team share."""


@team.group("key", example="agentvault team key new")
def team_key() -> None:
    """Make the team's encryption key, and copy it to each home directory.

    It encrypts credentials of services, secrets of alert destinations and applications,
    vault users' refresh tokens and the tenant's keys. It is never in the store.
    """


@team_key.command("new", example="agentvault team key new")
@click.option(
    "--lost",
    is_flag=True,
    help="Every copy of the active key is lost: give up what it encrypted.",
)
@pass_session
def new(session: CliSession, *, lost: bool) -> None:
    """Make the team's first key, or one that replaces the active key.

    The old key still decrypts until every broker has the new one; then everything is
    encrypted again, and the old key is removed.
    """
    _require_team(session)
    try:
        made = session.client.call(calls.TEAM_KEY, TeamKeyRequest(lost=lost))
    except UnreachableError as error:
        if session.settings.operators.by_claim:
            raise sign_in_needed(error, "this takes an operator") from None
        check_factor(session, error, "giving the team another key")
        made = asyncio.run(_make_here(session, lost=lost))
    if session.out.print_json(made):
        return
    out = session.out
    out.line("the team has the key ", out.cell(made.key))
    out.note("bring it to every other home: agentvault team key export FILE here,")
    out.note("agentvault team key import FILE there")
    if made.missing:
        out.note(f"these brokers have it not yet: {', '.join(made.missing)}")


async def _make_here(session: CliSession, *, lost: bool) -> TeamKeyInfo:
    """Make a key where no broker runs; `serve` encrypts again with it."""
    from agentvault_tui.broker.team_key import make_key

    loosened = loosened_here(session, "team", "give the team another key")
    async with session.ledger() as ledger:

        def record(draft: Draft, **rows: Any) -> Awaitable[object]:
            draft.detail[LOOSENED] = loosened
            return ledger.commit(draft, **rows)

        made = await make_key(
            session.home, ledger, session.operator, lost=lost, by=record
        )
    return TeamKeyInfo(key=made.key, before=made.before or None)


@team_key.command("export", example="agentvault team key export team-key.json")
@click.argument("file", type=FILE)
@_passphrase_file
@click.option(
    "--plain",
    is_flag=True,
    help="Write the key unencrypted: for a secret store, not for a disk or a mail.",
)
@pass_session
def export(
    session: CliSession, *, file: Path, passphrase_file: str | None, plain: bool
) -> None:
    """Write the team's key to FILE, mode 0600, under a passphrase."""
    name = _require_team(session)
    keys = read_keys(session.home.team_key, MOST_KEYS)
    if plain and passphrase_file:
        raise UsageError("--plain takes no passphrase", "leave one of both out")
    secret = None if plain else _passphrase(passphrase_file, again=True)
    content = encode_keys(keys, name, secret)
    try:
        put_private(file, content, replace=False)
    except FileExistsError:
        raise UsageError(f"{file} is there already", "choose another name") from None
    (key,) = key_ids(keys[:1])
    if not session.out.print_json({"file": str(file), "key": key}):
        session.out.line("the key ", key, " in ", session.out.cell(file))


@team_key.command("import", example="agentvault team key import team-key.json")
@click.argument("file", type=FILE)
@_passphrase_file
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def import_key(
    session: CliSession, *, file: Path, passphrase_file: str | None, yes: bool
) -> None:
    """Add the team's key of FILE to this home directory; a running broker uses it.

    Secrets that another key of this home directory encrypted are encrypted again.
    """
    name, home = _require_team(session), session.home
    content = read_own(file, EXPORT_BYTES + 1)
    if len(content) > EXPORT_BYTES:
        raise UsageError(f"{file} is too long for a key", "is it the right one?")
    there = decode_keys(
        content, name, lambda: _passphrase(passphrase_file, again=False)
    )
    home.prepare()
    here = team_keys(home)
    if here and here[0] not in there and not yes:
        _ask_to_replace(session, here, there)
    # Not locked while a person is asked: a broker there would wait as well.
    with locked_folder(home.keys):
        if team_keys(home) != here:
            raise RefusedError("nothing was changed: this home's key is another by now")
        keys = [*there, *(one for one in here if one not in there)][:MOST_KEYS]
        if keys != here:
            put_private(home.team_key, b"".join(keys), replace=True)
    (key,) = key_ids(keys[:1])
    if not session.out.print_json({"key": key, "changed": keys != here}):
        verb = "this home has the key " if keys != here else "this home had the key "
        session.out.line(verb, key)


def _ask_to_replace(
    session: CliSession, here: Sequence[bytes], there: Sequence[bytes]
) -> None:
    (ours,), (theirs,) = key_ids(here[:1]), key_ids(there[:1])
    what = f"this home has another key of the team, {ours}; the file has {theirs}"
    if session.json or not sys.stdin.isatty():
        raise RefusedError(f"nothing was changed: {what}", "give --yes to replace it")
    click.echo(f"{what}.", err=True)
    if not confirm("Replace it?"):
        raise RefusedError("nothing was changed")


def _passphrase(file: str | None, *, again: bool) -> str:
    """Read a passphrase from *file*, or ask for it on the terminal."""
    if file is None:
        if not sys.stdin.isatty():
            raise UsageError(
                "there is no terminal to ask for the passphrase on",
                "give --passphrase-file FILE, or - for standard input",
            )
        least = f" ({SHORTEST_PASSPHRASE} characters or more)" if again else ""
        return str(
            click.prompt(
                f"Passphrase{least}",
                hide_input=True,
                confirmation_prompt="Once more" if again else False,
                err=True,
            )
        )
    if file == "-":
        raw = sys.stdin.buffer.read(_PASSPHRASE_BYTES + 1)
    else:
        raw = read_own(Path(file), _PASSPHRASE_BYTES + 1)
    try:
        text = raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UsageError("the passphrase is not UTF-8") from None
    if not text or len(raw) > _PASSPHRASE_BYTES:
        raise UsageError("the passphrase is empty, or too long", "give one line")
    return text


def _require_team(session: CliSession) -> str:
    """Return the team's name; SettingsError: this home is of none.

    Its store may be named later: a ledger that is brought along is copied before.
    """
    if not session.settings.team.name:
        raise SettingsError(
            "this home directory is in no team: it encrypts with keys of its own",
            "set team.name, and store.url once there is one: docs/team.md",
        )
    return session.settings.team.name
