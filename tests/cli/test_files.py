"""`agentvault apply` and `export-config` against a real broker."""

from __future__ import annotations

import json
import os
import socket
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from socketserver import UnixStreamServer
from tempfile import TemporaryDirectory
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from support.command_line import Answer, Broker
from support.patience import PATIENT

from agentvault_tui.cli.files import _agents_text, _take
from agentvault_tui.home import Home
from agentvault_tui.operator_api.files import AgentEntry, FilesRequest

Run = Callable[..., Answer]
KEY = '{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'
TEAM = f"""
[agents.files-planner]
owner = "olga@acme.test"
scopes = ["read:calendar", "write:calendar"]
public_key = '{KEY}'
[agents.files-planner.delegates]
files-searcher = ["read:calendar"]
[agents.files-searcher]
owner = "bob@acme.test"
purpose = "finds"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "vault"
    found.mkdir()
    return found


class Team:
    """A folder of files that is applied: two agents, with names of this test alone."""

    _numbers = count(1)

    def __init__(self, folder: Path) -> None:
        self.prefix = f"team{next(self._numbers)}"
        self.planner, self.searcher = (
            f"{self.prefix}-{name}" for name in ("planner", "searcher")
        )
        self.text = TEAM.replace("files", self.prefix)
        self.folder = str(folder)
        self.file = folder / "team.toml"
        self.file.write_text(self.text)


@pytest.fixture
def team(folder: Path, av: Run) -> Iterator[Team]:
    team = Team(folder)
    assert av("apply", "-f", team.folder).code == 0
    yield team
    team.file.write_text("")
    told = av("apply", "-f", team.folder, "--plan", "--json").json
    assert av("apply", "-f", team.folder, "--prune", str(len(told["gone"]))).code == 0


def test_a_plan_tells_the_difference_and_changes_nothing(av: Run, folder: Path) -> None:
    """It exits 1 where there is one, and prints what applying would do."""
    (folder / "agents.toml").write_text(TEAM.replace("files-", "planned-"))
    for _ in range(2):
        planned = av("apply", "-f", str(folder), "--plan")
        assert planned.code == 1
        assert "+ agent planned-planner" in planned.out
        assert "delegates: planned-searcher +read:calendar" in planned.out
    told = av("apply", "-f", str(folder), "--plan", "--json")
    assert told.code == 1
    assert not told.json["applied"]
    assert [one["name"] for one in told.json["changes"]] == [
        "planned-planner",
        "planned-searcher",
    ]
    assert av("agents", "show", "planned-planner").code == 4


def test_an_exported_file_names_the_scopes_that_end(
    av: Run, team: Team, tmp_path: Path
) -> None:
    """They are in a comment and in no entry, and the plan shows them."""
    av("agents", "grant", team.planner, "read:email", "--for", "1h")
    av("export-config", str(tmp_path / "there"))
    text = (tmp_path / "there" / "agents.toml").read_text()
    assert f"# Left out: read:email of {team.planner} (agt_" in text
    assert "read:email" not in tomllib.loads(text)["agents"][team.planner]["scopes"]
    planned = av("apply", "-f", str(tmp_path / "there"), "--plan")
    assert planned.code == 1
    assert "scopes: -read:email" in planned.out


def test_applied_files_make_no_difference_any_more(av: Run, team: Team) -> None:
    """The plan exits 0, and the agents stand as the files say."""
    planned = av("apply", "-f", team.folder, "--plan")
    assert (planned.code, planned.out) == (0, "no difference\n")
    shown = av("agents", "show", team.planner, "--json").json
    assert shown["scopes"] == ["read:calendar", "write:calendar"]
    assert [one["name"] for one in shown["delegates"]] == [team.searcher]
    assert f"agents secret new {team.searcher}" in planned.err
    made = av("agents", "secret", "new", team.searcher, "--json").json
    assert made["client_secret"]
    assert av("apply", "-f", team.folder, "--plan").code == 0


def test_an_agent_that_is_gone_is_revoked_by_its_number_alone(
    av: Run, team: Team
) -> None:
    """Without --prune it stays, another number exits 1 and says the right one."""
    _, head, rest = team.text.partition(f"[agents.{team.searcher}]")
    team.file.write_text(head + rest)
    left = av("apply", "-f", team.folder)
    assert left.code == 0
    assert f"{team.planner} (--prune 1 revokes them)" in left.err
    refused = av("apply", "-f", team.folder, "--prune", "2")
    assert refused.code == 1
    assert f"are 1: {team.planner}" in refused.err
    assert "--prune 1" in refused.err
    planned = av("apply", "-f", team.folder, "--plan", "--prune", "1")
    assert planned.code == 1
    assert "is revoked" in planned.out
    assert av("apply", "-f", team.folder, "--prune", "1").code == 0
    shown = av("agents", "show", team.planner, "--json").json
    assert shown["status"] == "revoked"


def test_what_is_exported_makes_no_difference(
    av: Run, team: Team, tmp_path: Path
) -> None:
    """All that is in force is in the files, 0600, no secret, and revoked agents out."""
    line = ("--owner", "o", "--scope", "read:email")
    av("agents", "add", "exported", *line)
    av("agents", "add", f"{team.prefix}-mould", *line, "--template")
    av("agents", "add", f"{team.prefix}-cast", "--from", f"{team.prefix}-mould")
    there = tmp_path / "exported"
    told = av("export-config", str(there), "--json").json
    path = told["files"][0]
    text = Path(path).read_text()
    assert oct(Path(path).stat().st_mode & 0o777) == "0o600"
    assert oct(there.stat().st_mode & 0o777) == "0o700"
    assert "av_s" not in text
    assert f"[agents.{team.planner}]" in text
    cast = text.partition(f"[agents.{team.prefix}-cast]\n")[2].partition("\n[")[0]
    assert cast.strip() == f'from = "{team.prefix}-mould"'
    planned = av("apply", "-f", str(there), "--plan", "--json")
    assert planned.code == 0
    assert planned.json["changes"] == []
    again = av("export-config", str(there))
    assert again.code == 1
    assert "--force" in again.err
    assert av("export-config", str(there), "--force").code == 0
    assert av("apply", "-f", team.folder, "--plan").code == 0


class _Answering(BaseHTTPRequestHandler):
    """Answers any request with what is in force, as a broker taken over may say it."""

    name = ""

    def do_GET(self) -> None:
        told = {"agents": {}, "services": {self.name: "a = 1"}, "limits": None}
        body = json.dumps(told | {"left_out": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a client"  # a Unix socket has no address to log


@pytest.mark.parametrize("name", ["../escaped", "a/b", "/a", "..", "A", ""])
def test_a_broker_names_no_file_outside_the_folder(
    cli: Run, tmp_path: Path, name: str
) -> None:
    """A broker elsewhere that was taken over has an export write nothing it chose."""
    with TemporaryDirectory() as short:
        home = Home(Path(short), Path(short))
        home.prepare()
        handler = type("Told", (_Answering,), {"name": name})
        with UnixStreamServer(str(home.socket), handler) as server:
            server.timeout = PATIENT
            answering = Thread(target=server.handle_request)
            answering.start()
            there = tmp_path / "exported"
            told = cli("--home", short, "export-config", str(there))
            answering.join()
    assert told.code != 0
    assert "not one of this version" in told.err
    assert not there.exists()
    assert list(tmp_path.iterdir()) == []


SERVICE = """
origin = "https://api.files.example"
[[routes]]
method = "GET"
path = "/v1/mails"
scope = "read:email"
"""
LIMITS = """
[[limits]]
id = "files-mails"
scopes = ["read:email"]
within = "24h"
count = 20
"""


def test_services_and_limits_come_with_the_files(
    av: Run, broker: Broker, folder: Path, tmp_path: Path
) -> None:
    """Applied they are in the home and in force; exported they are word for word."""
    (folder / "services").mkdir()
    (folder / "services" / "files-mail.toml").write_text(SERVICE)
    (folder / "limits.toml").write_text(LIMITS)
    planned = av("apply", "-f", str(folder), "--plan")
    assert planned.code == 1
    assert "+ service files-mail" in planned.out
    assert '+id = "files-mails"' in planned.out
    assert not (broker.home / "services" / "files-mail.toml").exists()
    assert av("apply", "-f", str(folder)).code == 0
    assert (broker.home / "services" / "files-mail.toml").read_text() == SERVICE
    assert (broker.home / "limits.toml").read_text() == LIMITS
    assert av("services", "show", "files-mail").code == 0
    limits = av("limits", "--json").json["limits"]
    assert [one["id"] for one in limits] == ["files-mails"]
    assert av("apply", "-f", str(folder), "--plan").code == 0
    single = str(folder / "services" / "files-mail.toml")
    assert av("apply", "-f", single, "--plan").code == 0
    there = tmp_path / "exported"
    assert av("export-config", str(there)).code == 0
    assert (there / "services" / "files-mail.toml").read_text() == SERVICE
    assert (there / "limits.toml").read_text() == LIMITS
    assert av("apply", "-f", str(there), "--plan").code == 0
    (folder / "services" / "files-mail.toml").write_text(SERVICE.replace("GET", "G T"))
    (folder / "agents.toml").write_text('[agents.never]\nowner = "o"\n')
    refused = av("apply", "-f", str(folder))
    assert refused.code == 2
    assert "services/files-mail.toml: route 1" in refused.err
    assert av("agents", "show", "never").code == 4
    (folder / "services" / "files-mail.toml").unlink()
    (folder / "agents.toml").unlink()
    (folder / "limits.toml").write_text("")
    assert av("apply", "-f", str(folder)).code == 0
    assert av("limits", "--json").json["limits"] == []
    assert av("services", "show", "files-mail").code == 0
    (broker.home / "services" / "files-mail.toml").unlink()


def _twice(folder: Path) -> str:
    for name in ("a", "b"):
        (folder / f"{name}.toml").write_text('[agents.twice]\nowner = "o"\n')
    return "the agent twice stands in"


def _fifo(folder: Path) -> str:
    os.mkfifo(folder / "fifo.toml")
    return "is not a plain file"


def _socket(folder: Path) -> str:
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(folder)
        bound.bind("s.toml")
    return "cannot be read"


def _link(folder: Path) -> str:
    (folder / "link.toml").symlink_to("/etc/hostname")
    return "it is a symbolic link"


def _linked_folder(folder: Path) -> str:
    (folder / "agents").symlink_to("/etc")
    return "is a symbolic link"


def _huge(folder: Path) -> str:
    with (folder / "huge.toml").open("wb") as file:
        file.truncate(2**32)
    return "more than 3 MiB"


def _many(folder: Path) -> str:
    for name in "abcd":
        (folder / f"{name}.toml").write_text("# " + "x" * 2**20)
    return "more than 3 MiB"


def _empty(folder: Path) -> str:
    (folder / "README.md").write_text("no TOML here")
    return "holds no file"


def _unknown(folder: Path) -> str:
    (folder / "a.toml").write_text('[agents.a]\nowner = "o"\nscope = ["read:email"]\n')
    return "the agent a: unknown key 'scope': did you mean scopes"


def _broken(folder: Path) -> str:
    (folder / "a.toml").write_text("[agents.a\n")
    return "it is not TOML"


def _duplicate(folder: Path) -> str:
    text = '[agents.a]\nowner = "o"\n' * 2
    (folder / "a.toml").write_text(text)
    return "it is not TOML"


def _latin(folder: Path) -> str:
    (folder / "a.toml").write_bytes(b'[agents."\xe9"]\n')
    return "is not UTF-8"


def _secret(folder: Path) -> str:
    (folder / "a.toml").write_text('[agents.a]\nowner = "o"\nclient_secret = "s"\n')
    return "unknown key 'client_secret'"


def _two_limits(folder: Path) -> str:
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "limits.toml").write_text("")
    return "the file limits.toml stands in"


def _two_services(folder: Path) -> str:
    for name in ("a", "b"):
        (folder / name / "services").mkdir(parents=True)
        (folder / name / "services" / "mail.toml").write_text(SERVICE)
    return "the service mail stands in"


def _service_name(folder: Path) -> str:
    (folder / "services").mkdir()
    (folder / "services" / "..hidden.toml").write_text(SERVICE)
    (folder / "services" / "Mail.toml").write_text(SERVICE)
    return "services/Mail.toml cannot be called that"


def _alike(folder: Path) -> str:
    (folder / "a.toml").write_text('[agents.a1]\nowner = "o"\n[agents.A1]\nowner="o"')
    return "looks like"


BROKEN = (
    *(_twice, _fifo, _socket, _link, _linked_folder, _huge, _many, _empty, _unknown),
    *(_broken, _duplicate, _latin, _secret, _alike, _two_limits, _two_services),
    _service_name,
)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda one: one.__name__)
def test_a_broken_file_exits_2_with_one_line(
    av: Run,
    folder: Path,
    broken: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is wrong with a folder is told in a line, and nothing is applied."""
    monkeypatch.chdir(folder)
    told = broken(folder)
    before = [one["id"] for one in av("agents", "list", "--json").json["agents"]]
    for more in ((), ("--plan",), ("--prune", "0")):
        answer = av("apply", "-f", str(folder), *more)
        assert answer.code == 2
        assert told in answer.err
        assert answer.err.count("\n") == 1
    after = av("agents", "list", "--json").json["agents"]
    assert [one["id"] for one in after] == before


def test_a_file_that_is_not_there_exits_2(av: Run, tmp_path: Path) -> None:
    """A missing file is named."""
    answer = av("apply", "-f", str(tmp_path / "none.toml"))
    assert answer.code == 2
    assert "No such file" in answer.err


def test_a_time_may_be_written_as_toml_has_it(av: Run, folder: Path) -> None:
    """An end is a text or a time of TOML; both mean the same."""
    for until in ("2200-01-01T00:00:00Z", '"2200-01-01T00:00:00Z"'):
        text = f'[agents.timed]\nowner = "o"\nuntil = {until}\n'
        (folder / "a.toml").write_text(text)
        planned = av("apply", "-f", str(folder), "--plan")
        assert planned.code == 1
        assert "until: 2200-01-01T00:00:00" in planned.out
    (folder / "a.toml").write_text('[agents.timed]\nowner = "o"\nuntil = 12:00:00\n')
    assert av("apply", "-f", str(folder), "--plan").code == 2


def test_dotfiles_and_other_files_are_passed_over(av: Run, folder: Path) -> None:
    """A checkout of git may be applied as it is."""
    (folder / ".git").mkdir()
    (folder / ".git" / "config.toml").write_text("[broken")
    (folder / ".hidden.toml").write_text("[broken")
    (folder / "README.md").write_text("[broken")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "agents.toml").write_text('[agents.deep]\nowner = "o"\n')
    told = av("apply", "-f", str(folder), "--plan", "--json").json
    assert [one["name"] for one in told["changes"]] == ["deep"]


def test_without_a_broker_it_exits_3(cli: Run, tmp_path: Path, folder: Path) -> None:
    """Plan and export need a running broker, and say so."""
    (folder / "a.toml").write_text("")
    home = str(tmp_path / "home")
    assert cli("--home", home, "apply", "-f", str(folder), "--plan").code == 3
    assert cli("--home", home, "export-config", str(tmp_path / "x")).code == 3


def test_hostile_names_are_shown_inert(av: Run, broker: Broker, folder: Path) -> None:
    """A name with an escape sequence neither moves the terminal nor passes as text."""
    name = json.dumps("\u202eevil\u200b")
    (folder / "a.toml").write_text(f'[agents.{name}]\nowner = "o"\n')
    planned = av("apply", "-f", str(folder), "--plan")
    assert planned.code == 2
    assert "\u202e" not in planned.out + planned.err
    assert broker.home.exists()


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
_ENTRIES = st.builds(
    AgentEntry,
    owner=st.just(UNSET) | _TEXT,
    until=st.none() | st.just("2026-11-25T10:00:00Z"),
    purpose=st.sampled_from([UNSET, ""]) | _TEXT,
    scopes=st.just(UNSET) | st.lists(_TEXT, max_size=4).map(tuple),
    public_key=st.none() | st.just(KEY),
    resource_server=st.booleans(),
    serves=st.lists(_TEXT, max_size=2).map(tuple),
    resources=st.lists(_TEXT, max_size=2).map(tuple),
    delegates=st.just(UNSET)
    | st.dictionaries(_TEXT, st.lists(_TEXT).map(tuple), max_size=2),
    template=st.booleans(),
    from_template=st.none() | _TEXT,
)


@pytest.mark.slow
@given(st.dictionaries(_TEXT, _ENTRIES, max_size=4))
def test_what_is_written_is_what_is_read(agents: dict[str, AgentEntry]) -> None:
    """Any agent comes back from its file as it was."""
    wanted = FilesRequest()
    list(_take(wanted, Path("agents.toml"), _agents_text(agents, ()).encode()))
    assert wanted.agents == agents
