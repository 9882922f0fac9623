"""``agentvault systemd``: the broker as a service of systemd."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

import click

from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import UsageError

NAME: Final = "agentvault.service"
HEADER: Final = (
    "# Written by agentvault systemd install; run it again after an upgrade.\n"
)
SYSTEM: Final = Path("/etc/systemd/system")
"""Where units of the machine are."""
_STATE: Final = Path("/var/lib/agentvault")
_WORD: Final = re.compile(r"[\w./@+-]+", re.ASCII)
"""A word that a unit takes literally: no quoting, specifier or variable."""
_SERVICE: Final = """\
[Unit]
Description=AgentVault, the authorization server of AI agents
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} serve
{place}
# The key that the secrets of services are wrapped by, where it is not in the home.
LoadCredential=agentvault-secrets-key
LoadCredential=agentvault-secrets-key-previous
Restart=on-failure
RestartSec=2
# An upgrade reads every event.
TimeoutStartSec=15min
WatchdogSec=30
UMask=0077
LimitCORE=0
LimitNOFILE=65536
NoNewPrivileges=yes
LockPersonality=yes
# JavaScript needs it off: "MemoryDenyWriteExecute=no" for MCP servers that are.
MemoryDenyWriteExecute=yes
# AF_NETLINK asks the kernel whose a local connection is (sock_diag(7)).
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
{sandbox}
[Install]
WantedBy={target}
"""
# Not PrivateUsers: a connection's other end would have no user. Not ProcSubset: a
# deadline names the boot, which is in /proc/sys.
_SYSTEM_SANDBOX: Final = """\
CapabilityBoundingSet=
AmbientCapabilities=
DevicePolicy=closed
PrivateDevices=yes
PrivateIPC=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
"""


@group("systemd", on_home=True, example="agentvault systemd install --print")
def systemd() -> None:
    """Run the broker as a service of systemd: started, watched, sandboxed."""


@systemd.command("install", example="agentvault systemd install --user")
@click.option("--user", is_flag=True, help="A service of your own user.")
@click.option("--print", "only_print", is_flag=True, help="Print it and write nothing.")
@pass_session
def install(session: CliSession, *, user: bool, only_print: bool) -> None:
    """Write the unit file, and print the remaining steps.

    Without --user it is a service of the machine, for the user `agentvault`, with the
    home directory /var/lib/agentvault unless --home names another.
    """
    named = Path(session.home_option).absolute() if session.home_option else None
    if user:
        # In two folders it is where the program looks by itself.
        two = session.home.data != session.home.config
        home = None if two else session.home.data
    else:
        home = named or _STATE
    program = _program()
    unit = unit_file(program, home, user=user)
    hidden = [] if user else [p for p in (home, program) if p and _is_hidden(p)]
    if only_print:
        click.echo(unit, nl=False)
        for path in hidden:
            session.out.note(f"such a service does not see {path}")
        return
    if hidden:
        raise UsageError(
            f"a service of the machine does not see {hidden[0]}",
            "put it elsewhere, such as /opt, or install with --user",
        )
    folder = user_folder() if user else SYSTEM
    path = folder / NAME
    if path.exists() and not path.read_text("utf-8", "replace").startswith(HEADER):
        raise UsageError(
            f"{path} was not written by this command", "move it away, then install"
        )
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(unit, "utf-8")
    draft.chmod(0o644)
    draft.replace(path)
    steps = _steps(home, user=user)
    if not session.out.print_json({"file": str(path), "next": steps}):
        session.out.line("wrote ", session.out.cell(path), "; next:")
        for step in steps:
            session.out.line(step)


def unit_file(program: Path, home: Path | None, *, user: bool) -> str:
    """Return the unit file for *program*, named by its absolute path.

    Without a *home* it is the user's own two folders.

    Raises:
        UsageError: the program is not there, or one of the paths cannot stand in a
            unit.
    """
    if not program.exists():
        raise UsageError(f"there is no program {program}", "install AgentVault first")
    for path in filter(None, (program, home)):
        if not _WORD.fullmatch(str(path)):
            raise UsageError(f"{path} cannot stand in a unit file", "use plain names")
    place = [f"Environment=AGENTVAULT_HOME={home}"] if home else []
    if not user:
        place += ["User=agentvault", "Group=agentvault"]
        state = ["StateDirectory=agentvault", "StateDirectoryMode=0700"]
        place += state if home == _STATE else [f"ReadWritePaths={home}"]
    systemctl = "systemctl --user" if user else "systemctl"
    header = f"{HEADER}# Change it with: {systemctl} edit agentvault\n"
    return header + _SERVICE.format(
        program=program,
        place="\n".join(place) or "# Its home is the user's own.",
        sandbox="" if user else _SYSTEM_SANDBOX,
        target="default.target" if user else "multi-user.target",
    )


def _is_hidden(path: Path) -> bool:
    """Check whether ``ProtectHome=yes`` hides a path."""
    return any(map(path.is_relative_to, ("/home", "/root", "/run/user")))


def _program() -> Path:
    """Return the program of this installation, as a service manager starts it."""
    return Path(sys.executable).absolute().with_name("agentvault")


def user_folder() -> Path:
    """Return where units of this user's own are."""
    settings = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(settings, "systemd", "user")


def _steps(home: Path | None, *, user: bool) -> list[str]:
    """Return the commands that put it in effect."""
    if user:
        return [
            "systemctl --user daemon-reload",
            "systemctl --user enable --now agentvault",
            "loginctl enable-linger  # to run while you are not logged in",
        ]
    return [
        f"systemd-sysusers --inline 'u agentvault - AgentVault {home}'",
        "systemctl daemon-reload",
        "systemctl enable --now agentvault",
        f"sudo -u agentvault {_program()} --home {home}",
    ]
