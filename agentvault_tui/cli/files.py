"""``agentvault apply`` and ``export-config``: agents from files."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from msgspec import UNSET

from agentvault_tui.cli.framework import FILE, command, pass_session
from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import RefusedError, ServiceError, UsageError
from agentvault_tui.home import put_private
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.files import (
    AgentEntry,
    AgentFieldChange,
    FieldValue,
    FileChange,
    FilesAnswer,
    FilesRequest,
)
from agentvault_tui.text import visible
from agentvault_tui.toml_table import (
    convert_table,
    read_table,
    write_key,
    write_value,
)

_SUFFIX: Final = ".toml"
_MOST_BYTES: Final = 3 * 2**20
"""Of all files: less than the broker takes."""
_AGENTS: Final = "agents.toml"
_LIMITS: Final = "limits.toml"
_SERVICES: Final = "services"
"""The folder of service files; a file anywhere else has agents."""
_HEAD: Final = "# Written by agentvault export-config; secrets are never in it.\n"
_MARKS: Final = {
    "add": ("+", "good"),
    "change": ("~", "strong"),
    "revoke": ("-", "bad"),
}


class _AgentsFile(msgspec.Struct, forbid_unknown_fields=True):
    agents: dict[str, dict[str, Any]] = {}


@command("apply", example="agentvault apply -f agents.toml --plan")
@click.option(
    *("-f", "--file", "source"),
    required=True,
    metavar="FILE|DIR",
    type=FILE,
    help="A file, or a folder: all files below it that end in .toml.",
)
@click.option("--plan", is_flag=True, help="Only print the difference; exit 1 if any.")
@click.option(
    "--prune",
    type=click.IntRange(min=0),
    metavar="N",
    help="Revoke the N agents from earlier files that no file names any more.",
)
@click.option(
    "--accept",
    multiple=True,
    metavar="NAME",
    help="Grant to this agent though an operator registered it who may not grant, or"
    " though a removed agent had its name, key or subject.",
)
@pass_session
def apply(
    session: CliSession,
    source: Path,
    plan: bool,
    prune: int | None,
    accept: tuple[str, ...],
) -> int:
    """Apply agents, services and limits from files: all of them, or nothing.

    Agents are identified by name. Scopes and delegates that a file does not name are
    removed; a revoked agent stays revoked. Files contain no secrets: a new agent has a
    public key, or `agentvault agents secret new` makes it a secret. Services are files
    in a folder services, limits are in limits.toml.
    """
    wanted = _read_files(source)
    wanted.plan, wanted.prune = plan, UNSET if prune is None else prune
    wanted.accept = accept
    answer = session.client.call(calls.APPLY_FILES, wanted)
    if not session.out.print_json(answer):
        _tell(session.out, answer, plan=plan)
    return 1 if plan and answer.changes else 0


@command("export-config", example="agentvault export-config vault")
@click.argument("folder", metavar="DIR", type=FILE)
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@pass_session
def export_config(session: CliSession, folder: Path, force: bool) -> None:
    """Write the active configuration to DIR, as files for `agentvault apply`.

    Applying them to this broker changes nothing, but ends scopes that were granted for
    a time: these, and revoked agents, are left out.
    """
    exported = session.client.call(calls.FILES)
    if folder.exists() and not force and any(folder.iterdir()):
        raise RefusedError(
            f"{visible(folder, 200)} is not empty", "name another folder, or --force"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {folder / _AGENTS: _agents_text(exported.agents, exported.left_out)}
    if exported.limits is not None:
        files[folder / _LIMITS] = exported.limits
    for name, text in exported.services.items():
        files[folder / _SERVICES / f"{name}{_SUFFIX}"] = text
    for path, text in files.items():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        put_private(path, text.encode(), replace=True)
    out, written = session.out, [str(path) for path in files]
    if not out.print_json({"files": written, "left_out": exported.left_out}):
        for path in files:
            out.line("wrote ", out.cell(path, limit=1000))
        for line in exported.left_out:
            out.note(f"left out: {line}")


def _read_files(source: Path) -> FilesRequest:
    """Read a file, or all files of a folder.

    Raises:
        UsageError: one of them is no such file, or repeats another's entry.
    """
    wanted = FilesRequest()
    places: dict[tuple[str, str], Path] = {}
    left = _MOST_BYTES
    for path in _paths(source):
        content = _read(path, left, follow=path == source)
        left -= len(content)
        names: list[str] = []
        for kind, name in _take(wanted, path, content):
            if (other := places.setdefault((kind, name), path)) is not path:
                raise UsageError(
                    f"the {kind} {visible(name, 60)} stands in {visible(other, 200)}"
                    f" and in {visible(path, 200)}",
                    "keep one of them",
                )
            if kind == "agent":
                names.append(name)
        wanted.places[visible(path.absolute(), 200)] = tuple(names)
    return wanted


def _take(
    wanted: FilesRequest, path: Path, content: bytes
) -> Iterator[tuple[str, str]]:
    """Add a file's entries to *wanted*; yield the names, each before its entry."""
    where: str = visible(path, 200)
    try:
        text = content.decode("utf-8-sig")
        if path.absolute().parent.name == _SERVICES:
            yield "service", path.stem
            wanted.services[path.stem] = text
        elif path.name == _LIMITS:
            yield "file", _LIMITS
            wanted.limits = text
        else:
            for name, entry in read_table(text, _AgentsFile, {}).agents.items():
                where = f"{visible(path, 200)}: the agent {visible(name, 60)}"
                yield "agent", name
                if isinstance(until := entry.get("until"), datetime):
                    entry["until"] = until.isoformat()
                wanted.agents[name] = convert_table(entry, AgentEntry, {})
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not UTF-8", "save it as UTF-8") from None
    except ServiceError as error:
        raise UsageError(f"{where}: {error.what}", error.remedy) from None


def _paths(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    paths = sorted(_below(source))
    if not paths:
        raise UsageError(f"{visible(source, 200)} holds no file that ends in .toml")
    return paths


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder; names that begin with a dot are passed over."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _below(path)
            elif entry.is_dir():
                raise UsageError(
                    f"{visible(path, 200)} is a symbolic link", "name what it points to"
                )
            elif entry.name.endswith(_SUFFIX):
                yield path


def _read(path: Path, most: int, *, follow: bool) -> bytes:
    """Read a plain file; in a folder no symbolic link leads out of it."""
    # Without O_NONBLOCK a FIFO would hold this up for good.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    shown = visible(path, 200)
    try:
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except OSError as error:
        link = not follow and path.is_symlink()
        why = "it is a symbolic link" if link else str(error.strerror)
        raise UsageError(f"{shown} cannot be read ({why})") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{shown} is not a plain file")
        content = file.read(most + 1)
    if len(content) > most:
        raise UsageError(
            f"up to {shown} the files have more than {_MOST_BYTES // 2**20} MiB",
            "apply them in parts",
        )
    return content


def _agents_text(agents: dict[str, AgentEntry], left_out: Sequence[str]) -> str:
    """Return the text of a file that says *agents*, and in comments its gaps."""
    lines = [_HEAD, *(f"# Left out: {visible(one, 400)}\n" for one in left_out)]
    for name, entry in sorted(agents.items()):
        table = f"agents.{write_key(name)}"
        lines.append(f"[{table}]\n")
        fields = msgspec.to_builtins(entry)
        delegates = fields.pop("delegates", None)
        for field, value in fields.items():
            lines.append(f"{field} = {write_value(value)}\n")
        if delegates is not None:
            lines.append(f"[{table}.delegates]\n")
        for other, scopes in sorted((delegates or {}).items()):
            lines.append(f"{write_key(other)} = {write_value(scopes)}\n")
        lines.append("\n")
    return "".join(lines)


def _tell(out: Output, answer: FilesAnswer, *, plan: bool) -> None:
    for change in answer.changes:
        _tell_change(out, change)
    if not answer.changes:
        out.line("no difference")
    elif plan:
        out.line("nothing was changed: this is a plan")
    elif answer.recorded:
        out.line("applied, and recorded as ", out.cell(answer.digest, limit=80))
    else:
        out.note("applied, and not in the ledger yet")
    if answer.gone and not any(one.change == "revoke" for one in answer.changes):
        names = ", ".join(visible(name, 60) for name in answer.gone[:20])
        more = f" and {len(answer.gone) - 20} more" if len(answer.gone) > 20 else ""
        out.note(
            f"applied earlier, in no file now, and still active: {names}{more}"
            f" (--prune {len(answer.gone)} revokes them)"
        )
    for note in answer.notes:
        out.note(note)


def _tell_change(out: Output, change: FileChange) -> None:
    mark, tone = _MARKS[change.change]
    ident = f" ({change.id})" if change.id else ""
    out.line(
        Cell(out.shown(f"{mark} {change.kind} "), tone),
        out.cell(change.name, "strong", 60),
        f"{ident}{' is revoked' if change.change == 'revoke' else ''}",
    )
    for field in change.fields:
        if field.field == "text":
            old, new = (
                str(one or "").split("\n") for one in (field.before, field.after)
            )
            for line in [*difflib.unified_diff(old, new, n=1, lineterm="")][2:]:
                out.line("    ", out.cell(line, limit=2000))
            continue
        out.line("    ", out.cell(f"{field.field}: {_words(field)}", limit=2000))


def _words(field: AgentFieldChange) -> str:
    """Word the change of a field; of lists the added and removed entries."""
    before, after = field.before, field.after
    if isinstance(after, dict):
        earlier = before if isinstance(before, dict) else {}
        phrases = (
            f"{visible(name, 60)} {_moves(earlier.get(name, ()), after.get(name, ()))}"
            for name in sorted({*earlier, *after})
            if set(earlier.get(name, ())) != set(after.get(name, ()))
        )
        return "; ".join(phrases)
    if isinstance(after, tuple):
        return _moves(before if isinstance(before, tuple) else (), after)
    return f"{_word(after)}" if before is None else f"{_word(before)} to {_word(after)}"


def _moves(before: Sequence[str], after: Sequence[str]) -> str:
    gone, new = set(before) - set(after), set(after) - set(before)
    signed = [f"+{one}" for one in sorted(new)] + [f"-{one}" for one in sorted(gone)]
    return " ".join(signed)


def _word(value: FieldValue) -> str:
    if value is None or value == "":
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
