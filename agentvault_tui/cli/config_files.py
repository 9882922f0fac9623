"""Check files ``NAME.toml`` of the home's folders for the gateway; needs no broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import NotFoundError, ServiceError

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
    found = session.home.config / folder
    if what is None:
        return sorted(found.glob("[!.]*.toml"))
    path = Path(what).expanduser()
    if path.suffix == ".toml" or len(path.parts) > 1:
        return [path]
    named = found / f"{what}.toml"
    if not named.exists():
        known = ", ".join(one.stem for one in sorted(found.glob("[!.]*.toml")))
        raise NotFoundError(
            f"there is no file {named}", f"known: {known}" if known else ""
        )
    return [named]


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
        shown: what ``--json`` says of a file that is not in order, besides.

    Returns:
        what ``--json`` says, its notes to be filled in; the item if it is in order.

    Raises:
        NotFoundError: there is no such file.
    """
    from agentvault_tui.broker.policy_files import NAME, load_policy, read_text

    told: dict[str, Any] = {"name": path.stem, "file": str(path), "ok": False}
    told |= {**shown, "problems": [], "notes": []}
    home = session.home.config
    text = read_text(path, home if path.absolute().is_relative_to(home) else None)
    if text is None:
        raise NotFoundError(f"there is no file {path}")
    if not NAME.fullmatch(path.stem):
        told["problems"] = ["a name has lower-case letters, digits, - and _"]
        return told, None
    try:
        catalogue = load_policy(session.home).catalogue
        item = parse(path.stem, text, catalogue, home)
    except ServiceError as error:
        told["problems"] = [error.diagnosis()]
        return told, None
    told["ok"] = True
    return told, item


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
    found: list[dict[str, Any]],
    *,
    summary: Callable[[dict[str, Any]], str],
    none: str,
) -> int:
    """Print checked files of one *kind*; return 1 when one is not in order."""
    out = session.out
    told = {"ok": all(one["ok"] for one in found), kind: found}
    if not out.print_json(told):
        if not found:
            out.line(none)
        for one in found:
            file = out.cell(one["file"], limit=1000)
            if one["ok"]:
                out.line(out.word("ok"), " ", file, ": ", out.cell(summary(one)))
            for level, key in (("fault", "problems"), ("warning", "notes")):
                for text in one[key]:
                    out.line(
                        out.word(level), " ", file, ": ", out.cell(text, limit=600)
                    )
    return 0 if told["ok"] else 1
