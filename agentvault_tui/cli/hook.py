"""``agentvault hook``: one hook call of an agent host, answered in the host's words.

A host starts it before every call of a tool, so it imports little: the standard
library, the home, and no command line library. Whatever goes wrong is a no, wherever
the host takes one: docs/hosts.md says where it does not.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from agentvault_tui import strict_json
from agentvault_tui.cli.hook_hosts import (
    HOSTS,
    HookCall,
    HookError,
    HookVerdict,
    HostWire,
    blocked,
)
from agentvault_tui.errors import AgentVaultError

if TYPE_CHECKING:
    from pathlib import PurePath
    from types import FrameType

CONFINED: Final = "--confined"
"""The option of a hook that is inside `agentvault run --confine`."""
LARGEST: Final = 256 * 1024
"""Bytes of a hook call; a larger one is denied."""
DEADLINE_S: Final = 25.0
"""From the start of the process until it answers, whatever happens.

VS Code lets a call through whose hook takes 30 seconds, the shortest limit of a host.
"""
_MOST: Final = 30_000
"""Bytes of arguments that are sent to the broker, whose bodies have 64 KiB."""
_MOST_PLACED: Final = 24_000
"""Bytes of places that are sent."""
_LONG_NAME: Final = 200
_SHOWN: Final = 2_000
"""Characters of an argument that is too long to be sent whole."""
_REASON_LENGTH: Final = 500
"""Characters of the model's own words; longer ones stay an argument."""


def main(arguments: Sequence[str]) -> int | None:
    """Answer the hook call on standard input.

    Args:
        arguments: after ``agentvault hook``.

    Returns:
        the exit code; None when the command line is not of the plain form, such as
        with ``--help``.
    """
    words, options = [], {"--agent": "", "--home": ""}
    left = [one for one in arguments if one != CONFINED]
    confined = len(left) < len(arguments)
    while left:
        name, mark, value = left.pop(0).partition("=")
        if name in options and (mark or left):
            options[name] = value if mark else left.pop(0)
        elif name.startswith("-"):
            return None
        else:
            words.append(name)
    if len(words) != 1 or words[0] not in HOSTS or not options["--agent"]:
        return None
    home = options["--home"] or None
    return answer(words[0], options["--agent"], home, confined=confined)


def answer(host: str, agent: str, home: str | None, *, confined: bool = False) -> int:
    """Read one hook call, ask the broker, and write the answer for *host*.

    Args:
        host: the agent host.
        agent: the caller.
        home: AgentVault's.
        confined: whether to ask as the run that this is in, and not at the home.

    Returns:
        the exit code.
    """
    signal.signal(signal.SIGALRM, _too_long)
    left_s = max(DEADLINE_S - _age_s(), 0.001)
    # Once more a second later, should the first have been swallowed.
    signal.setitimer(signal.ITIMER_REAL, left_s, 1.0)
    host_form = HOSTS[host]
    call = None
    try:
        call = _read(host_form)
        if call.event not in host_form.events:
            written = blocked(f"AgentVault decides no {call.event or 'such'} event")
        else:
            ask = _asked_as_run() if confined else _asked_at_home(home)
            written = host_form.write(call, _decided(host, agent, ask, call))
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer is a no
        why = f"AgentVault did not decide: {_diagnosis(error)}"
        no = HookVerdict(False, False, why)
        written = host_form.write(call, no) if call else host_form.unread(why)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if written.out is not None:
        sys.stdout.write(json.dumps(written.out) + "\n")
    if written.err:
        sys.stderr.write(written.err + "\n")
    sys.stdout.flush()
    return written.code


def _age_s() -> float:
    """Return the seconds for which this process has run, as its host counts."""
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - no import more
            started = int(file.read().rpartition(b")")[2].split()[19])
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        return max(0.0, now_s - started / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return 1.0  # a system without these files: a program starts in less


def _too_long(_: int, __: FrameType | None) -> None:
    raise HookError(f"there was no answer within {DEADLINE_S:.0f} s")


def _diagnosis(error: Exception) -> str:
    if isinstance(error, AgentVaultError):
        return error.diagnosis()
    return str(error) if isinstance(error, HookError) else type(error).__name__


def _read(host: HostWire) -> HookCall:
    raw = sys.stdin.buffer.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise HookError(f"the call has more than {LARGEST // 1024} KiB")
    try:
        document = strict_json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise HookError(f"the call on standard input is no JSON ({error})") from None
    if not isinstance(document, dict):
        raise HookError("the call on standard input is no JSON object")
    call = host.read(document)
    if not call.tool:
        raise HookError("the call names no tool")
    return call


class _Broker(NamedTuple):
    """The broker that decides, and how it is asked."""

    ask: Callable[[str, dict[str, object]], dict[str, object]]
    """Sends one body to ``hooks/HOST``."""
    folders: tuple[str | PurePath, ...] = ()
    """Of AgentVault's home, where this user sees it."""


def _asked_at_home(home: str | None) -> _Broker:
    from agentvault_tui.home import Home

    vault = Home.locate(home)
    path = str(vault.operator_socket)

    def ask(target: str, body: dict[str, object]) -> dict[str, object]:
        return _over_socket(path, f"/api/{target}", body)

    ours = vault.data, vault.config, vault.operator_socket.parent
    return _Broker(ask, ours)


def _asked_as_run() -> _Broker:
    """Ask at the agents' listener with the run's token, inside a confinement."""
    url = os.environ.get("AGENTVAULT_URL", "")
    path = os.environ.get("AGENTVAULT_TOKEN_FILE", "")
    if not (url and path):
        raise HookError("this is no command of `agentvault run`: it has no token")
    with open(path, encoding="ascii") as file:  # noqa: PTH123 - no import more
        token = file.read().strip()

    def ask(target: str, body: dict[str, object]) -> dict[str, object]:
        return _over_http(url, f"/{target}", body, token)

    return _Broker(ask)


def _decided(host: str, agent: str, broker: _Broker, call: HookCall) -> HookVerdict:
    prose = HOSTS[host].prose.get(call.tool)
    text = call.arguments.get(prose) if prose else None
    if isinstance(text, str) and len(text) <= _REASON_LENGTH:
        rest = {name: one for name, one in call.arguments.items() if name != prose}
        call = call._replace(arguments=rest)
    else:
        text = ""
    arguments, shortened = _shortened(call.arguments)
    answer = broker.ask(
        f"hooks/{host}",
        {
            "agent": agent,
            "tool": call.tool,
            "arguments": arguments,
            "omitted": shortened,
            **({"arguments_sha256": _digest(call.arguments)} if shortened else {}),
            "cwd": call.cwd[:4000],
            "reason": text,
            "mcp_server": call.server[:400],
            "mcp_tool": call.server_tool[:400],
            "wait": True,
            **_placed(HOSTS[host], broker.folders, call),
        },
    )
    message, stepup = str(answer.get("message")), answer.get("auth_req_id")
    if stepup:
        message = (
            f"{message.rstrip('.')}. A person has to approve this in AgentVault "
            f"({stepup}). When they have, make exactly the same call again."
        )
    approved = answer.get("reason") == "stepup_approved"
    return HookVerdict(answer.get("outcome") == "allowed", approved, message)


def _over_http(
    url: str, target: str, body: dict[str, object], token: str
) -> dict[str, object]:
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    scheme, _, place = url.partition("://")
    # The authorities of the run are those of SSL_CERT_FILE.
    kind = HTTPSConnection if scheme == "https" else HTTPConnection
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = kind(place, timeout=DEADLINE_S)
    try:
        connection.request("POST", target, json.dumps(body), headers)
        answer = connection.getresponse()
        return _told_by_broker(answer.status, answer.read())
    except (OSError, HTTPException) as error:
        raise HookError(f"the broker does not answer ({error})") from None
    finally:
        connection.close()


def _over_socket(path: str, target: str, body: dict[str, object]) -> dict[str, object]:
    """Send one request over the broker's socket; a whole HTTP client takes 90 ms."""
    content = json.dumps(body).encode()
    head = (
        f"POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    received = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            connection.sendall(head.encode() + content)
            while piece := connection.recv(65_536):
                received += piece
    except OSError as error:
        raise HookError(
            f"no broker answers ({error.strerror}): start `agentvault serve`"
        ) from None
    top, _, text = bytes(received).partition(b"\r\n\r\n")
    status = top[9:12].decode("latin-1")
    return _told_by_broker(int(status) if status.isdecimal() else 0, text)


def _told_by_broker(status: int, text: bytes) -> dict[str, object]:
    try:
        answer = json.loads(text)
    except ValueError:
        raise HookError("the broker broke off") from None
    if status != 200 or not isinstance(answer, dict):
        members = answer if isinstance(answer, dict) else {}
        what = members.get("detail") or members.get("error_description")
        raise HookError(f"{what or 'the broker refused'} ({status})")
    return answer


def _placed(
    host: HostWire, ours: tuple[str | PurePath, ...], call: HookCall
) -> dict[str, object]:
    """Return where the paths of a call lead, as `HookRequest` has it."""
    from agentvault_tui.cli.hook_places import VAULT, PathLocator

    named = os.environ.get(host.project, "") if host.project else call.cwd
    # cwd does not count if the host names the project's folder: an agent may choose it.
    roots = [named] if named else list(call.roots)
    code = [os.path.dirname(os.path.dirname(__file__))]  # noqa: PTH120 - no import more
    if sys.prefix != sys.base_prefix:
        code.append(sys.prefix)  # a virtual environment, maybe the project's own
    places = PathLocator(
        *(call.cwd, roots, ours, os.environ, host.folder),
        code=code,
        searches=call.tool in host.searching,
        splits=call.tool in host.splitting,
        moves=host.moves(os.environ),
    )
    paths = places.of_arguments(call.arguments)
    reached = next((text for name, text, _, place in paths if place.where == VAULT), "")
    for name in ("command", "cmd"):
        given = call.arguments.get(name)
        for line in given if isinstance(given, list) else [given]:
            if isinstance(line, str):
                reached = reached or places.reaches_vault(line)
    lines, shell = None, host.shells.get(call.tool, "")
    others = ({"cmd", "command"} - {shell}) & call.arguments.keys()
    if shell and not others and call.arguments.keys() <= host.plain:
        line = call.arguments.get(shell)
        base = "" if host.elsewhere else places.cwd
        lines = places.of_line(line, base) if isinstance(line, str) else None
    placed: dict[str, object] = {
        "places": [
            [name, text, pattern, *place] for name, text, pattern, place in paths
        ],
        "commands": lines
        and [
            {
                "words": one.words,
                "cwd": one.cwd,
                "local": one.local,
                "configured": one.configured,
                "places": [
                    [number, place.resolved, place.where, place.folder]
                    for number, place in one.places
                ],
                "repository": one.repository,
            }
            for one in lines
        ],
    }
    if len(json.dumps(placed)) > _MOST_PLACED:
        placed = {"places": [], "commands": None}  # so all are unknown
    return placed | {"reaches_vault": reached[:1000]}


def _shortened(arguments: dict[str, object]) -> tuple[dict[str, object], list[str]]:
    """Shorten arguments that exceed the largest body, the longest first.

    A shortened one has its beginning and its SHA-256, so the digest covers all of it.

    Returns:
        the arguments, and the names of those that are shortened.

    Raises:
        HookError: there are too many of them, or one is called as another is cut.
    """
    named = {_short_name(name): name for name in arguments}
    if len(named) != len(arguments):
        raise HookError("two arguments of the call have one name")
    shown = {short: arguments[name] for short, name in named.items()}
    shortened = [short for short, name in named.items() if short != name]
    sizes = {name: len(json.dumps(value)) for name, value in shown.items()}
    total = sum(sizes.values()) + sum(map(len, sizes))
    for name in sorted(sizes, key=lambda one: sizes[one], reverse=True):
        if total <= _MOST:
            break
        value = shown[name]
        text = value if isinstance(value, str) else json.dumps(value)
        shown[name] = {
            "cut": text[:_SHOWN],
            "characters": len(text),
            "sha256": _digest(value),
        }
        total += len(json.dumps(shown[name])) - sizes[name]
        shortened.append(name)
    if total > _MOST:
        raise HookError("the call has too many arguments")
    return shown, sorted(set(shortened))


def _short_name(name: str) -> str:
    if len(name) <= _LONG_NAME:
        return name
    return f"{name[:100]}… ({len(name)} characters, sha256 {_digest(name)})"


def _digest(arguments: object) -> str:
    """Return the values that the broker derives itself, if it has all arguments."""
    import hashlib

    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
