"""Check files ``NAME.toml`` of the home's folders for the gateway; needs no broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    NotFoundError,
    ServiceError,
)
from agentvault_tui.home import Home, private_folder, put_private
from agentvault_tui.operator_api import calls

if TYPE_CHECKING:
    from agentvault_tui.gateway import Service
    from agentvault_tui.policy import Catalogue

_T = TypeVar("_T")


def config_files(
    session: CliSession, folder: str, what: str | None = None
) -> list[Path]:
    """Return the files of a folder of the home, or the one that *what* names.

    Raises:
        NotFoundError: the folder has none of that name.
    """
    directory = session.home.config / folder
    if what is None:
        return sorted(directory.glob("[!.]*.toml"))
    path = Path(what).expanduser()
    if path.suffix == ".toml" or len(path.parts) > 1:
        return [path]
    named = directory / f"{what}.toml"
    if not named.exists():
        names = ", ".join(one.stem for one in sorted(directory.glob("[!.]*.toml")))
        raise NotFoundError(
            f"there is no file {named}", f"known: {names}" if names else ""
        )
    return [named]


def write_config_file(
    home: Home, folder: str, name: str, text: str, *, replace: bool
) -> Path:
    """Write ``FOLDER/NAME.toml`` of the home directory; return its path.

    Raises:
        ConflictError: there is such a file, and it is not to be replaced.
    """
    path = home.config / folder / f"{name}.toml"
    home.prepare()
    private_folder(path.parent)
    try:
        put_private(path, text.encode(), replace=replace)
    except FileExistsError:
        raise ConflictError(
            f"{path} is there already", "--force replaces it; nothing was written"
        ) from None
    return path


def waiting_edits(session: CliSession, folder: str) -> list[str]:
    """Return the warnings of a running broker about edits that wait for an approver.

    Args:
        session: of the command.
        folder: of the home directory, such as ``mcp``.
    """
    client = session.client
    if not client.reachable():
        return []
    try:
        client.call(calls.SECRETS)  # it reads changed files first
        warnings = client.call(calls.STATUS).warnings
    except AgentVaultError:
        return []
    return [one for one in warnings if one.startswith(f"An edit of {folder}/")]


def check_config_file(
    session: CliSession,
    path: Path,
    parse: Callable[[str, str, Catalogue, Path], _T],
    shown: dict[str, Any],
) -> tuple[dict[str, Any], _T | None]:
    """Parse one file as the broker would.

    Args:
        session: of the command.
        path: of the file.
        parse: makes the item of name, text, catalogue and the home's folder.
        shown: further members of ``--json`` for an invalid file.

    Returns:
        the members of ``--json``, its notes to be filled in; the item if it is valid.

    Raises:
        NotFoundError: there is no such file.
    """
    from agentvault_tui.broker.policy_files import NAME, load_policy, read_text

    report: dict[str, Any] = {"name": path.stem, "file": str(path), "ok": False}
    report |= {**shown, "problems": [], "notes": []}
    home = session.home.config
    text = read_text(path, home if path.absolute().is_relative_to(home) else None)
    if text is None:
        raise NotFoundError(f"there is no file {path}")
    if not NAME.fullmatch(path.stem):
        report["problems"] = ["a name has lower-case letters, digits, - and _"]
        return report, None
    try:
        catalogue = load_policy(session.home).catalogue
        item = parse(path.stem, text, catalogue, home)
    except ServiceError as error:
        report["problems"] = [error.diagnosis()]
        return report, None
    report["ok"] = True
    return report, item


def notes_of(session: CliSession, service: Service) -> list[str]:
    """Return why calls to *service* would fail although its file is in order."""
    from agentvault_tui.cli.secrets import home_secrets
    from agentvault_tui.errors import NotForOriginError

    secrets, notes = home_secrets(session), list[str]()
    for name in service.credential.secrets:
        try:
            secrets.check(name, service.destinations)
        except NotFoundError as error:
            notes.append(f"the secret {name} is not set: {error.remedy}")
        except NotForOriginError as error:
            notes.append(error.diagnosis())
    connection = service.credential.connection
    if connection and connection not in session.settings.connections:
        note = f"config.toml has no [connections.{connection}]"
        notes.append(f"{note}: docs/token-vault.md")
    if service.origin.is_private and not service.allow_private:
        note = "the origin is no public address: calls are refused without"
        notes.append(f"{note} allow_private = true")
    return notes


def print_checks(
    session: CliSession,
    kind: str,
    reports: list[dict[str, Any]],
    *,
    summary: Callable[[dict[str, Any]], str],
    none: str,
) -> int:
    """Print checked files of one *kind*; return 1 when one is not in order."""
    out = session.out
    folder = {"servers": "mcp"}.get(kind, kind)
    waits = waiting_edits(session, folder)
    for one in reports:
        one["notes"] += [text for text in waits if f"/{one['name']}.toml " in text]
    result = {"ok": all(one["ok"] for one in reports), kind: reports}
    if not out.print_json(result):
        if not reports:
            out.line(none)
        for one in reports:
            file = out.cell(one["file"], limit=1000)
            if one["ok"]:
                out.line(out.word("ok"), " ", file, ": ", out.cell(summary(one)))
            for level, key in (("fault", "problems"), ("warning", "notes")):
                for text in one[key]:
                    out.line(
                        out.word(level), " ", file, ": ", out.cell(text, limit=600)
                    )
    return 0 if result["ok"] else 1
