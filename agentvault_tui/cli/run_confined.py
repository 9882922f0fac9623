"""``agentvault run --confine``: a command's access, and the record of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from agentvault_tui.cli.run_command import PlainCommand, Startable, environment, say
from agentvault_tui.cli.run_own_files import check_own_files, own_program
from agentvault_tui.cli.run_terminal import CommandStreams
from agentvault_tui.confine import (
    PROGRAM_FOLDERS,
    SANDBOX_EXEC,
    AttemptLog,
    Endpoint,
    Layers,
    Means,
    Restriction,
    View,
    ViewOptions,
    build_filter,
    build_profile,
    build_view,
    confined_command,
    find_layers,
    find_left,
    find_program,
    find_strongest,
    remember_given,
)
from agentvault_tui.errors import AgentVaultError, NotConfinedError, SettingsError
from agentvault_tui.home import Home, private_folder, put_private
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.access import (
    AttemptEntry,
    AttemptsRequest,
    ConfinedRequest,
    RunInfo,
)
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.shapes import AgentInfo

REPORT_S: Final = 60.0
"""Between two records of a command's attempts."""
_PASSED: Final = re.compile("PATH|USER|LOGNAME|SHELL|TERM|COLORTERM|LANG|LC_[A-Z_]+|TZ")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_IDENTITY: Final = ("user.name", "user.email")
_GIT_FILES: Final = ("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL")
"""Variables that say where a person's configuration of git is."""


@dataclass(slots=True)
class PreparedRun:
    """A confined command before its run exists."""

    layers: Layers
    view: View
    words: tuple[str, ...]
    variables: Mapping[str, str]
    """Inherited, of the few that are passed."""
    home: Home
    options: ViewOptions
    outside: int = 0
    """How often it tried to reach something else."""

    @property
    def has_pids(self) -> bool:
        """Check whether the command is in a PID namespace of its own."""
        return self.layers.bubblewrap is not None

    @contextmanager
    def started(
        self, client: OperatorClient, info: RunInfo, folder: Path, grouped: bool
    ) -> Iterator[Startable]:
        """Yield the command, ready and recorded; record its attempts until it ends.

        Args:
            client: of the broker.
            info: the run.
            folder: the run's files.
            grouped: whether it gets a process group of its own without namespaces.

        Raises:
            NotConfinedError: it cannot be confined after all.
            AgentVaultError: its start cannot be recorded.
        """
        put_private(
            folder / "gitignore", self.view.ignored_by_git.encode(), replace=True
        )
        view = replace(self.view, own=(folder,))
        given = environment(self.variables, info, folder)
        given = _with_git(given, folder)
        given = _with_loopback(given, client)
        endpoints = tuple(map(Endpoint.of, (info.proxy_url, info.agents_url)))
        ports = [one.port for one in endpoints]
        weaker = self._say_limits(ports)
        if self.layers.bubblewrap is None:
            self._record(client, info, weaker, "proxy")
            yield self._restricted(view, given, ports, grouped)
            return
        streams, ended = CommandStreams(), ExitStack()
        ended.callback(streams.restore)
        with (
            ended,
            confined_command(
                self.layers.bubblewrap,
                view,
                self.words,
                given,
                endpoints=endpoints,
                records=self.home.stand_ins,
                streams=streams.numbers,
                local_sockets=self.options.local_sockets,
            ) as command,
        ):
            streams.begin()
            self._record(client, info, (), "packets" if command.log else "proxy")
            log = command.log or AttemptLog()
            with _reported(client, info, log):
                yield command
            self.outside = log.total
        if command.watch.lost:
            say(
                f"the command was ended: {command.watch.lost} was replaced outside, and"
                " so no longer protected; look at what is in it"
            )
        self._say_left()

    def _say_limits(self, ports: Sequence[int]) -> tuple[str, ...]:
        """Print the limits of the layers; return each promise that does not hold."""
        weaker, bubblewrap = self.layers.weaker(ports), self.layers.bubblewrap
        if weaker:
            say(f"confined less than promised: {self.layers.because}")
        for line in weaker:
            say(f"weaker: {line}")
        if bubblewrap is not None and not bubblewrap.mounts_descriptors:
            say(
                f"bubblewrap {bubblewrap.version} follows paths while it mounts: until"
                " this command ends, no other confined command that may write its"
                " folders starts; 0.12.0 has no such limit"
            )
        return weaker

    def _say_left(self) -> None:
        """Print the files of the command that programs outside read by themselves."""
        for line in find_left(self.view).lines():
            say(line)

    def _restricted(
        self, view: View, given: dict[str, str], ports: Sequence[int], grouped: bool
    ) -> PlainCommand:
        """Return a command that is confined without namespaces."""
        if self.layers.kind is Means.SEATBELT:
            profile = build_profile(view, ports)
            words = (SANDBOX_EXEC, "-p", profile, *self.words)
            return PlainCommand(words, given, grouped)
        temporary = view.home / "tmp"
        temporary.mkdir(exist_ok=True, mode=0o700)
        given["TMPDIR"] = str(temporary)
        code = build_filter(local_sockets=self.options.local_sockets, tcp_only=True)
        restriction = Restriction(view, ports, code)
        return PlainCommand(self.words, given, grouped, restriction.apply)

    def _record(
        self, client: OperatorClient, info: RunInfo, weaker: Sequence[str], seen: str
    ) -> None:
        request = ConfinedRequest(
            layers=self.layers.names,
            read=tuple(map(str, (*self.view.read, *self.view.runtime)))[:256],
            write=tuple(map(str, (*self.view.write, self.view.home)))[:256],
            env=self.options.env,
            weaker=tuple(weaker),
            seen="packets" if seen == "packets" else "proxy",
        )
        client.call(calls.CONFINED, request, id=info.id)


def prepare(
    home: Home,
    agent: AgentInfo,
    words: tuple[str, ...],
    options: ViewOptions,
    *,
    best: bool,
) -> PreparedRun:
    """Find the layers, and check a command's access; nothing is started.

    Args:
        home: AgentVault's.
        agent: the one that the command runs as.
        words: the command line.
        options: the operator's choice of its access.
        best: whether the strongest layers there are suffice.

    Raises:
        NotConfinedError: a layer is missing, or a folder must not be given.
        OSError: there is no such program, or it cannot be run.
    """
    layers = find_strongest() if best else find_layers()
    path = os.environ.get("PATH", os.defpath)
    program = find_program(words[0], path)
    own = home.homes / agent.id
    private_folder(own)
    connected = connected_files(home, agent.id)
    tools = own_program() if connected else []
    view = build_view(
        options,
        home,
        own,
        programs=[program, *tools],
        path=path,
        connected=connected,
    )
    check_own_files(home, (*view.write, view.home))
    if layers.bubblewrap is None:
        _check_needs_no_namespaces(options, view)
    remember_given(view, home)
    for folder in view.omitted:
        say(f"{folder} of PATH is hidden from the command: it may hold your secrets")
    for folder in view.protection.shared:
        say(
            f"{folder} is read-only: its files have further names outside (hard links),"
            " as uv, pnpm and conda make them; to let the command change these too:"
            f" --write {folder}"
        )
    variables = {
        name: value
        for name, value in os.environ.items()
        if _PASSED.fullmatch(name) or name in options.env
    }
    variables["HOME"] = str(view.home)
    return PreparedRun(layers, view, words, variables, home, options)


def _check_needs_no_namespaces(options: ViewOptions, view: View) -> None:
    """Check that a command is safe without namespaces.

    Raises:
        NotConfinedError: it is not.
    """
    if options.local_sockets:
        raise NotConfinedError(
            "without namespaces it would reach every Unix socket of this machine",
            "leave --local-sockets away",
        )
    for folder in view.protection.shared:
        raise NotConfinedError(
            f"{folder} has files with further names outside (hard links), which only"
            " namespaces protect",
            f"let the command change these too: --write {folder}",
        )


def connected_files(home: Home, agent_id: str) -> list[Path]:
    """Return the files that `agentvault connect --confined` wrote for an agent."""
    try:
        text = connected_record(home, agent_id).read_text("utf-8")
        return [Path(one) for one in json.loads(text) if Path(one).exists()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{connected_record(home, agent_id)} cannot be read ({error})",
            "agentvault connect HOST --agent NAME --confined --write",
        ) from error


def connected_record(home: Home, agent_id: str) -> Path:
    """Return where the names of those files are."""
    return home.homes / f"{agent_id}.json"


@contextmanager
def _reported(client: OperatorClient, info: RunInfo, log: AttemptLog) -> Iterator[None]:
    """Record the attempts of each minute, and the rest at the end of the block."""
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(REPORT_S):
            _report(client, info, log)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _report(client, info, log)


def _report(client: OperatorClient, info: RunInfo, log: AttemptLog) -> None:
    entries = []
    for attempt, count in log.take():
        if attempt is None:
            entries.append(AttemptEntry(kind="more", count=count))
            continue
        named = "host" if attempt.kind == "dns" else "address"
        place: dict[str, Any] = {named: attempt.destination, "kind": attempt.kind}
        entries.append(AttemptEntry(**place, port=attempt.port, count=count))
    if not entries:
        return
    try:
        client.call(
            calls.ATTEMPTS, AttemptsRequest(attempts=tuple(entries)), id=info.id
        )
    except AgentVaultError as error:
        say(f"what it tried to reach is not recorded: {error.what}")


def _with_git(given: dict[str, str], folder: Path) -> dict[str, str]:
    """Add git's settings: its configuration in the folder is read-only.

    The person's identity is given as the system's configuration, which that of a
    repository overrides.
    """
    put_private(folder / "gitconfig", _git_identity().encode(), replace=True)
    settings = {
        "branch.autoSetupMerge": "false",
        "core.excludesFile": str(folder / "gitignore"),
    }
    first = int(given["GIT_CONFIG_COUNT"])
    for number, (name, value) in enumerate(settings.items(), first):
        given[f"GIT_CONFIG_KEY_{number}"] = name
        given[f"GIT_CONFIG_VALUE_{number}"] = value
    return given | {
        "GIT_CONFIG_COUNT": str(first + len(settings)),
        "GIT_CONFIG_SYSTEM": str(folder / "gitconfig"),
    }


def _git_identity() -> str:
    """Return the person's name and address, as a file of git's.

    Git starts outside, so neither the program nor its files may be a command's.
    """
    git = shutil.which("git", path=os.pathsep.join(PROGRAM_FOLDERS))
    if git is None:
        return ""
    line = [git, "config", "--null", "--get-regexp", r"^user\.(name|email)$"]
    own = {name: os.environ[name] for name in _GIT_FILES if name in os.environ}
    settings = dict[str, str]()
    with suppress(OSError, UnicodeDecodeError):
        done = subprocess.run(
            line, cwd="/", env=own, capture_output=True, text=True, check=False
        )
        for entry in done.stdout.split("\0"):
            name, _, value = entry.partition("\n")
            if name in _IDENTITY and value.isprintable():
                settings[name.removeprefix("user.")] = json.dumps(
                    value, ensure_ascii=False
                )
    lines = (f"\t{name} = {value}\n" for name, value in settings.items())
    return "[user]\n" + "".join(lines)


def _with_loopback(given: dict[str, str], client: OperatorClient) -> dict[str, str]:
    """Let clients reach servers that the command starts: its loopback is its own.

    If a service has such an origin, the proxy answers for it.
    """
    origins = (urlsplit(one.origin) for one in client.call(calls.SERVICES).services)
    if any(one.hostname in _LOOPBACK for one in origins):
        return given
    hosts = ",".join((given["no_proxy"], *_LOOPBACK))
    return given | dict.fromkeys(("no_proxy", "NO_PROXY", "npm_config_noproxy"), hosts)
