"""``agentvault uninstall``: remove AgentVault's files outside its home directory."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click

from agentvault_tui.cli import completion, man, systemd
from agentvault_tui.cli.disconnect import connected_files, without
from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.host_files import COPIES, write_file
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import (
    AgentVaultError,
    HomeInUseError,
    RefusedError,
    SettingsError,
)
from agentvault_tui.home import Home

_PACKAGE: Final = "agentvault-tui"
_PAGE: Final = re.compile(r'\.TH "AGENTVAULT[^"]*" 1 ')
_HOME: Final = re.compile(r"^Environment=AGENTVAULT_HOME=(.+)$", re.MULTILINE)
_SYSTEMCTL_S: Final = 10
_STAND_IN: Final = "stand-in"
_FOLDERS: Final = re.compile(
    r"\.(claude|codex|cursor|gemini|copilot|github|vscode|zfunc|config|local)|hooks|"
    r"claude-code|github-copilot|policy\.d|share|fish|(bash-)?completions?|man1?|"
    r"systemd|user|(default|multi-user)\.target\.wants"
)
"""Names of folders that commands make for their files."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A file that is removed, or changed to *text*."""

    kind: str
    path: Path
    text: str | None = None

    def perform(self) -> None:
        """Remove it, and the folders that are empty without it.

        Raises:
            OSError: it cannot be removed.
        """
        if self.kind == _STAND_IN:
            from agentvault_tui.confine import remove_stand_in

            remove_stand_in(self.path)  # unless there is something in it
            return
        if self.text is not None:
            write_file(self.path, self.text, copies=False)
            return
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)
        for folder in self.path.parents:
            if folder == Path.home() or not _FOLDERS.fullmatch(folder.name):
                break
            try:
                folder.rmdir()
            except OSError:
                break  # it holds something else


@dataclass(slots=True)
class Plan:
    """The removals, the files that stay and why, and the remaining steps."""

    removals: list[Removal] = field(default_factory=list)
    keeps: list[tuple[Path, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def document(self, *, done: bool) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {
            "remove": [{"kind": r.kind, "path": str(r.path)} for r in self.removals],
            "keep": [{"path": str(path), "why": why} for path, why in self.keeps],
            "faults": self.faults,
            "next": self.steps,
            "done": done,
        }


@command(
    "uninstall",
    on_home=True,
    # It also works where the settings name a broker of another machine.
    always_answers=True,
    example="agentvault uninstall --plan",
)
@click.option("--plan", "only_plan", is_flag=True, help="List it and remove nothing.")
@click.option(
    "--purge", is_flag=True, help="Also remove the home directory; asks before."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def uninstall(session: CliSession, *, only_plan: bool, purge: bool, yes: bool) -> int:
    """Remove hooks, completion scripts, manual pages, units and certificates.

    The home directory with the ledger stays, unless --purge is given. The last line is
    the command that removes the program. Exits 1 if something cannot be removed.
    """
    home = session.home
    with ExitStack() as stack:
        first = _hold(home, stack, only_plan=only_plan)
        plan = find_installed(home, purge=purge)
        plan.steps[:0] = first
        if only_plan:
            if not session.out.print_json(plan.document(done=False)):
                _print(session, plan, "would remove")
            return 1 if plan.faults else 0
        _refuse_active(plan)
        if purge and not yes:
            _ask(session, plan)
        removed = []
        for removal in plan.removals:
            try:
                removal.perform()
            except (OSError, AgentVaultError) as error:
                plan.faults.append(f"{removal.path} cannot be removed ({error})")
            else:
                removed.append(removal)
        plan.removals = removed
    list(_systemctl(plan, "daemon-reload"))
    if not session.out.print_json(plan.document(done=not plan.faults)):
        _print(session, plan, "removed")
    return 1 if plan.faults else 0


def find_installed(home: Home, *, purge: bool = False) -> Plan:
    """List the files and members that AgentVault wrote.

    Args:
        home: the home directory, which need not exist.
        purge: whether the home directory is removed as well.

    Returns:
        the plan.

    Raises:
        RefusedError: the home directory cannot be purged.
    """
    plan = Plan()
    for path, form in connected_files(home):
        try:
            plan.removals += _of_host(path, form, plan)
        except SettingsError as error:
            plan.faults.append(error.diagnosis())
        except OSError as error:
            plan.faults.append(f"{path} cannot be read ({error.strerror})")
    plan.removals += _scripts(plan)
    plan.removals += _units(plan)
    plan.removals += _stand_ins(home)
    folders = [one for one in dict.fromkeys((home.data, home.config)) if one.exists()]
    if purge:
        # A folder may be a link to one elsewhere: both go.
        both = [one for each in folders for one in (each.resolve(), each)]
        folders = list(dict.fromkeys(both))
        for folder in folders:
            around = (Path.home().resolve(), Path(sys.prefix).resolve())
            if any(one.is_relative_to(folder) for one in around):
                raise RefusedError(
                    f"{folder} holds more than a home directory of AgentVault",
                    "delete what is AgentVault's by hand",
                )
        plan.removals += [Removal("home", folder) for folder in folders]
    else:
        plan.removals += [Removal("certificate", one) for one in _certificates(home)]
        why = (
            "settings, keys and the ledger; to remove it: agentvault uninstall --purge"
        )
        plan.keeps += [(folder, why) for folder in folders]
    plan.steps.append(_program_step())
    return plan


def _of_host(path: Path, form: str, plan: Plan) -> Iterator[Removal]:
    """Yield the members that `connect` wrote into a host's file, and its copies.

    If only the copy has its content, it stays.
    """
    if not path.is_file():  # opening a pipe would wait for its other end
        return
    before, after = without(path, form)
    if before != after:
        # A link that a person made stays one, to a file that says nothing.
        empty = "" if form == "toml" else "{}"
        text = empty if after is None and path.is_symlink() else after
        yield Removal("hook", path, text)
    real = path.resolve()
    for copy in sorted(real.parent.glob(f"{real.name}.before-agentvault-*")):
        if not COPIES.search(copy.name) or copy.is_symlink() or not copy.is_file():
            continue
        try:
            same = _parsed(without(copy, form)[1], form) == _parsed(after, form)
        except SettingsError:
            same = False
        if same:
            yield Removal("copy", copy)
        else:
            plan.keeps.append((copy, f"your {path.name} before; the file differs now"))


def _parsed(text: str | None, form: str) -> object:
    if not text:
        return {}
    return tomllib.loads(text) if form == "toml" else json.loads(text)


def _scripts(plan: Plan) -> Iterator[Removal]:
    """Yield completion scripts and manual pages."""
    for shell in completion.SHELLS:
        path = completion.script_path(shell)
        if completion.VARIABLE not in _text(path):
            continue
        yield Removal("completion", path)
        if shell == "zsh":
            plan.steps.append("take fpath+=(~/.zfunc) out of ~/.zshrc, if it is there")
    for path in sorted(man.pages_folder().glob("agentvault*.1")):
        if _PAGE.match(_text(path)):
            yield Removal("manual", path)


def _units(plan: Plan) -> Iterator[Removal]:
    """Yield unit files of systemd, and the links that enable them."""
    for folder in (systemd.user_folder(), systemd.SYSTEM):
        path = folder / systemd.NAME
        if not path.is_file():
            continue
        if not _text(path).startswith(systemd.HEADER):
            plan.keeps.append((path, "not written by agentvault systemd install"))
            continue
        yield Removal("unit", path)
        for link in sorted(folder.glob(f"*.wants/{systemd.NAME}")):
            yield Removal("unit", link)
        if home := _HOME.search(_text(path)):
            plan.keeps.append((Path(home[1]), "the home directory of the service"))
        if folder == systemd.SYSTEM:
            plan.steps.append("userdel agentvault, if nothing else runs as that user")
        if (own := path.with_name(f"{systemd.NAME}.d")).exists():
            plan.keeps.append((own, "your changes to the unit"))


def _stand_ins(home: Home) -> Iterator[Removal]:
    """Yield the empty files and folders that killed confined commands left behind."""
    from agentvault_tui.confine import list_left

    yield from (Removal(_STAND_IN, path) for path in list_left(home.stand_ins))


def _certificates(home: Home) -> Iterator[Path]:
    """Yield the authorities of a home directory, and the certificates they made."""
    from agentvault_tui.web.local_ca import CaFiles
    from agentvault_tui.web.tls import read_certificate

    own, public = CaFiles.of(home), CaFiles.of(home, public=True)
    files = [own.ca, own.ca_key, own.leaf.cert, own.leaf.key]
    with suppress(AgentVaultError):  # another certificate, or none
        ours = read_certificate(own.ca)
        if read_certificate(public.leaf.cert).issuer == ours.issuer:
            files += [public.leaf.cert, public.leaf.key]
    files += [*home.keys.glob("gateway-ca*.pem"), home.run / "gateway-ca.pem"]
    yield from (path for path in files if path.exists())


def _text(path: Path) -> str:
    """Return a file's text; empty if it cannot be read."""
    try:
        return path.read_text("utf-8", "replace") if path.is_file() else ""
    except OSError:
        return ""


def _program_step() -> str:
    """Return the command that removes the program, by how it was installed."""
    if Path(sys.prefix, "pipx_metadata.json").exists():
        return f"pipx uninstall {_PACKAGE}"
    if Path(sys.prefix, "uv-receipt.toml").exists():
        return f"uv tool uninstall {_PACKAGE}"
    with suppress(metadata.PackageNotFoundError, ValueError, LookupError, TypeError):
        origin = metadata.distribution(_PACKAGE).read_text("direct_url.json")
        if json.loads(origin or "")["dir_info"]["editable"]:
            return f"delete the checkout, and {sys.prefix}"
    return f"{sys.executable} -m pip uninstall {_PACKAGE}"


def _hold(home: Home, stack: ExitStack, *, only_plan: bool) -> list[str]:
    """Prevent a broker from starting on the home directory meanwhile.

    Returns:
        the step that a plan needs first, if a broker runs.

    Raises:
        HomeInUseError: one runs, and it is more than a plan.
    """
    from agentvault_tui.ledger.opening import HomeLock

    try:
        if home.run.is_dir():
            stack.callback(HomeLock(home.lock_file).release)
    except HomeInUseError as error:
        if not only_plan:
            raise
        return [f"stop the broker: {error.what}"]
    return []


def _ask(session: CliSession, plan: Plan) -> None:
    """Ask before the home directory is removed.

    Raises:
        RefusedError: the answer is no, or there is no terminal to ask at.
    """
    from agentvault_tui.cli.output import confirm

    folders = [str(one.path) for one in plan.removals if one.kind == "home"]
    if not folders:
        return
    if session.json or not sys.stdin.isatty():
        raise RefusedError("nothing was removed: --purge needs a yes", "give --yes")
    _print(session, plan, "would remove")
    if not confirm(f"Remove all of it, with the ledger in {' and '.join(folders)}?"):
        raise RefusedError("nothing was removed")


def _systemctl(plan: Plan, *words: str) -> Iterator[tuple[str, bool]]:
    """Run systemctl for each unit of *plan*, where systemd's program is.

    Yields:
        the start of the command line, and whether it succeeded.
    """
    program, paths = shutil.which("systemctl"), {one.path for one in plan.removals}
    for folder, start in (
        (systemd.user_folder(), ["systemctl", "--user"]),
        (systemd.SYSTEM, ["systemctl"]),
    ):
        if program and folder / systemd.NAME in paths:
            line = [program, *start[1:], *words]
            with suppress(subprocess.TimeoutExpired):
                done = subprocess.run(
                    line, capture_output=True, timeout=_SYSTEMCTL_S, check=False
                )
                yield " ".join(start), done.returncode == 0


def _refuse_active(plan: Plan) -> None:
    """Refuse while a unit that is to be removed runs.

    Raises:
        RefusedError: it runs, with the command that stops it.
    """
    for start, active in _systemctl(plan, "is-active", "--quiet", systemd.NAME):
        if active:
            raise RefusedError(
                "nothing was removed: the service runs",
                f"{start} disable --now agentvault",
            )


def _print(session: CliSession, plan: Plan, verb: str) -> None:
    """Print a plan, or its result."""
    out = session.out
    for removal in plan.removals:
        how = "AgentVault's part of " if removal.text is not None else ""
        out.line(f"{verb} {removal.kind:<12} {how}", out.cell(removal.path, limit=400))
    if not plan.removals:
        out.line("nothing of AgentVault is outside its home directory")
    for path, why in plan.keeps:
        out.line("keeps ", out.cell(path, limit=400), f": {why}")
    for fault in plan.faults:
        out.line("fault ", out.cell(fault, limit=800))
    for step in plan.steps:
        out.line("next: ", out.cell(step, "strong", 400))
