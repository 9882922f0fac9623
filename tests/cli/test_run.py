"""`agentvault run`: unmodified tools behind the gateway, stopped by a revocation."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command_line import PROGRAM, Answer, Broker
from support.confining import need_confinement
from support.https_site import Site
from support.needs import need
from support.patience import PATIENT

from agentvault_tui.cli import run as module
from agentvault_tui.cli.run import summary
from agentvault_tui.cli.run_command import environment
from agentvault_tui.errors import NotFoundError, UnreachableError
from agentvault_tui.operator_api.access import RunInfo, RunNewsInfo

pytestmark = pytest.mark.slow

Run = Callable[..., Answer]
URLLIB = "import urllib.request as u; print(u.urlopen('URL/data.json').read().decode())"
REQUESTS = "import requests; print(requests.get('URL/data.json').text)"
HTTPX = "import httpx; print(httpx.get('URL/data.json').text)"
AIOHTTP = """
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.get('URL/data.json') as answer:
            print(await answer.text())
asyncio.run(main())
"""
FETCH = "fetch('URL/data.json').then(a => a.text()).then(console.log)"
NODE_HTTPS = (
    "require('https').get('URL/data.json', a => a.pipe(process.stdout)).on('error',"
    " e => { console.log(e); process.exit(1) })"
)


def told(answer: Answer) -> str:
    """Return the last line beside the command's own output."""
    return answer.err.splitlines()[-1].removeprefix("agentvault run: ")


def tools() -> list[Any]:
    """Return the command line of each tool, and what it prints or leaves."""
    python = (sys.executable, "-c")
    npm = "npm install --no-audit --no-fund --registry URL/npm tiny"
    pip = (sys.executable, "-m", "pip", "download", "--no-deps", "--quiet")
    found = [
        ("curl", ("curl", "-sS", "--fail", "URL/data.json")),
        ("git", ("git", "clone", "-q", "URL/repo.git", "cloned")),
        ("npm", tuple(npm.split())),
        ("pip", (*pip, "--disable-pip-version-check", "-i", "URL/simple", "tiny")),
        ("urllib", (*python, URLLIB)),
        ("requests", (*python, REQUESTS)),
        ("httpx", (*python, HTTPX)),
        ("aiohttp", (*python, AIOHTTP)),
        ("fetch", ("node", "-e", FETCH)),
        ("node https", ("node", "-e", NODE_HTTPS)),
    ]
    return [pytest.param(*one, id=one[0]) for one in found]


def node_reads_proxies() -> bool:
    """Tell whether the machine's node has NODE_USE_ENV_PROXY."""
    node = shutil.which("node")
    if node is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, check=True)
    major, minor = (int(part) for part in said.stdout.decode()[1:].split(".")[:2])
    return (major, minor) >= (24, 5) or (major == 22 and minor >= 21)


LEFT = {"git": "cloned/README", "pip": "tiny-1.0-py3-none-any.whl"}
LEFT["npm"] = "node_modules/tiny/package.json"


def confined() -> tuple[str, ...]:
    """Return the options of a confined run, with the packages of this Python."""
    found = {Path(one) for one in sys.path if one.endswith("site-packages")}
    return ("--confine", *(word for one in found for word in ("--read", str(one))))


@pytest.mark.parametrize("confine", [False, True], ids=["open", "confined"])
@pytest.mark.parametrize(("tool", "words"), tools())
def test_an_unmodified_tool_reaches_a_service_and_holds_no_credential(
    behind: Run,
    site: Site,
    tmp_path: Path,
    tool: str,
    words: tuple[str, ...],
    *,
    confine: bool,
) -> None:
    """Whatever a tool asks for comes with the service's credential, and is recorded."""
    if confine:
        need_confinement()
    need(shutil.which(words[0]), words[0])
    if words[0] == "node" and not node_reads_proxies():  # Debian's is older
        pytest.skip("this Node reads no proxy variables: 22.21 and later do")
    site.asked.clear()
    line = tuple(word.replace("URL", site.url) for word in words)
    answer = behind(*line, options=confined() if confine else ())
    assert answer.code == 0, answer
    if left := LEFT.get(tool):
        assert (tmp_path / "work" / left).is_file()
    else:
        assert json.loads(answer.out) == {"answer": 42}
    assert site.asked, "nothing reached the site"
    assert all(known for _, known, _ in site.asked)
    calls = len(site.asked)
    outside = ", 0 outside" if confine else ""
    summed = f"{calls} call{'s' * (calls > 1)}, 0 held, 0 refused{outside}"
    assert told(answer) == summed


def test_the_token_and_key_are_worth_nothing_beside_the_proxy(
    behind: Run, site: Site
) -> None:
    """A program that ignores the proxy reaches the site, which does not know it."""
    script = (
        "import os, ssl, sys, urllib.request as u\n"
        "token = open(os.environ['AGENTVAULT_TOKEN_FILE']).read()\n"
        "key = os.environ['HTTPS_PROXY'].split(':')[2].split('@')[0]\n"
        f"trust = ssl.create_default_context(cafile={str(site.ca)!r})\n"
        "direct = u.build_opener(u.ProxyHandler({}), u.HTTPSHandler(context=trust))\n"
        "for secret in (token, key):\n"
        f"    asked = u.Request({site.url + '/data.json'!r})\n"
        "    asked.add_header('Authorization', 'Bearer ' + secret)\n"
        "    try: direct.open(asked)\n"
        "    except u.HTTPError as error: print(error.code)\n"
    )
    answer = behind(sys.executable, "-c", script)
    assert answer.out.split() == ["401", "401"], answer
    assert told(answer) == "0 calls, 0 held, 0 refused"


def test_base_urls_and_the_token_file_work_without_the_proxy(
    behind: Run, site: Site
) -> None:
    """A program that knows AgentVault asks at the service's base URL."""
    script = (
        "import os, stat, urllib.request as u\n"
        "path = os.environ['AGENTVAULT_TOKEN_FILE']\n"
        "assert stat.S_IMODE(os.stat(path).st_mode) == 0o600\n"
        "asked = u.Request(os.environ['MY_SITE_BASE_URL'] + '/data.json')\n"
        "asked.add_header('Authorization', 'Bearer ' + open(path).read())\n"
        "print(u.urlopen(asked).read().decode())\n"
    )
    answer = behind(sys.executable, "-c", script)
    assert json.loads(answer.out) == {"answer": 42}, answer
    curl = 'curl -sS -H "Authorization: Bearer $(cat $AGENTVAULT_TOKEN_FILE)"'
    answer = behind("sh", "-c", f"{curl} $MY_SITE_BASE_URL/data.json")
    assert json.loads(answer.out) == {"answer": 42}, answer


def test_what_is_no_service_is_refused_and_counted(behind: Run, site: Site) -> None:
    """Another host does not open; the run's end says so."""
    answer = behind("curl", "-sS", f"https://127.0.0.1:{site.port}/data.json")
    assert answer.code == 56, answer
    assert told(answer) == "0 calls, 0 held, 1 refused"


def test_a_host_may_be_passed_to_for_one_run(behind: Run, site: Site) -> None:
    """It is a tunnel: the site sees no credential, and private places stay closed."""
    answer = behind(
        *("curl", "-sS", f"https://127.0.0.1:{site.port}/data.json"),
        options=("--pass-through", "127.0.0.1"),
    )
    assert answer.code == 56, answer
    assert told(answer) == "0 calls, 1 tunnel, 0 held, 0 refused"


def test_a_run_for_one_service_reaches_no_other(
    behind: Run, broker: Broker, site: Site
) -> None:
    """What --service leaves out has no base URL, and does not open at the proxy."""
    line = ("sh", "-c", f"env; curl -sS {site.url}/data.json")
    with broker.service("elsewhere", 'origin = "https://elsewhere.test"\n'):
        answer = behind(*line, options=("--service", "elsewhere"))
    assert "ELSEWHERE_BASE_URL" in answer.out, answer
    assert "MY_SITE_BASE_URL" not in answer.out
    assert told(answer) == "0 calls, 0 held, 1 refused"
    answer = behind("true", options=("--service", "nosuch"))
    assert (answer.code, "nosuch" in answer.err) == (4, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -9 $$"), 137),
        (("/nonexistent/command",), 127),
        (("/",), 126),
    ],
)
def test_the_exit_code_is_the_commands(
    behind: Run, words: tuple[str, ...], code: int
) -> None:
    """As a shell gives it, also for one that a signal ended or that cannot start."""
    assert behind(*words).code == code


def test_nothing_secret_is_in_argv_and_nothing_stays_on_disk(
    behind: Run, broker: Broker
) -> None:
    """Other users see command lines; the run's files end with it."""
    show = "tr '\\0' ' ' < /proc/$PPID/cmdline; echo $AGENTVAULT_TOKEN_FILE"
    answer = behind("sh", "-c", show)
    assert "av_" not in answer.out, answer
    folder = Path(answer.out.split()[-1]).parent
    assert folder.parent == broker.home / "run"
    assert not folder.exists()


def test_the_key_is_dead_when_the_command_has_ended(behind: Run, site: Site) -> None:
    """What a program kept of its environment opens nothing afterwards."""
    answer = behind("sh", "-c", "echo $HTTPS_PROXY; cat $AGENTVAULT_TOKEN_FILE")
    proxy, token = answer.out.split()
    for password in (re.findall(r":(av_r_[^@]+)@", proxy)[0], token):
        at = proxy.partition("@")[2]
        proxies = {"https": f"http://agent:{password}@{at}"}
        with pytest.raises(OSError, match="407"):
            urllib.request.build_opener(urllib.request.ProxyHandler(proxies)).open(
                site.url
            )


@pytest.mark.parametrize("everyone", [False, True])
def test_a_revocation_stops_the_command_and_says_why(
    av: Run, broker: Broker, coder: str, tmp_path: Path, everyone: bool
) -> None:
    """SIGTERM comes within moments; one line says why; its children end with it."""
    mark = tmp_path / "child"
    script = f"sh -c 'echo $$ > {mark}; sleep 600' & wait"
    with subprocess.Popen(
        [*PROGRAM, "run", "--agent", coder, "--", "sh", "-c", script],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=broker.env,
    ) as process:
        ends = time.monotonic() + PATIENT
        while not (mark.exists() and mark.read_text().strip()):
            assert time.monotonic() < ends
            time.sleep(0.01)
        agent = ("--all",) if everyone else (coder,)
        av("agents", "revoke", *agent, "--reason", "test")
        _, err = process.communicate(timeout=PATIENT)
    if everyone:
        av("agents", "restore", "--all")
    assert process.returncode == 128 + signal.SIGTERM
    why = "everything is stopped" if everyone else "its agent was revoked"
    assert f"agentvault run: {coder} is stopped: {why} by an operator" in err, err
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_at_a_terminal_the_command_reads_it_and_ctrl_c_is_its_own(
    broker: Broker, coder: str
) -> None:
    """It stays in the terminal's foreground; its exit code and the summary follow."""
    ours, theirs = os.openpty()

    def at_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    script = "trap 'exit 5' INT; read word; echo got-$word; while :; do sleep 0.1; done"
    with subprocess.Popen(
        [*PROGRAM, "run", "--agent", coder, "--", "sh", "-c", script],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=broker.env,
        preexec_fn=at_terminal,  # noqa: PLW1509 - no other thread is at work
    ) as process:
        os.close(theirs)
        shown = b""
        os.write(ours, b"hello\n")
        while b"got-hello" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"\x03")
        while b"0 refused" not in shown:
            shown += os.read(ours, 4096)
        assert process.wait(PATIENT) == 5
    os.close(ours)


class _Scripted:
    """A broker that says what it is told to say."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def call(self, *_: object, **__: object) -> object:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


def news(ended: str | None = None, token: str | None = None) -> RunNewsInfo:
    return RunNewsInfo(
        ended=ended,
        why="its agent was revoked",
        access_token=token,
        expires_in=None,
        calls=0,
        tunnels=0,
        held=0,
        refused=0,
    )


def info(**more: Any) -> RunInfo:
    said: dict[str, Any] = {
        "id": "run_1",
        "key": "av_r_key",
        "proxy_url": "http://127.0.0.1:7718",
        "ca": "PEM",
        "agents_url": "http://127.0.0.1:7717",
        "services": {"my-api": "http://127.0.0.1:7717/gw/my-api"},
        "access_token": "av_t_one",
        "expires_in": 3600,
    }
    return RunInfo(**said | more)


@pytest.fixture
def commanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., int]]:
    """Run a command that a scripted broker answers about."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, 1)}
    threads = {*threading.enumerate()}

    def call(*words: str, answers: tuple[object, ...]) -> int:
        monkeypatch.setattr(module, "GRACE", 0.1)
        monkeypatch.setattr(module, "_PATIENCE", 0.0)
        client: Any = _Scripted(*answers)
        one = module._Command(client, info(), tmp_path, "coder", grouped=True)
        variables = {"PATH": os.environ["PATH"]}
        code = one.run(module.PlainCommand(words, variables, grouped=True))
        one.finish()
        return code

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)
    for thread in {*threading.enumerate()} - threads:
        thread.join(PATIENT)
        assert not thread.is_alive(), "asks for news of a command that has ended"


def test_a_command_that_ignores_sigterm_is_killed(
    commanded: Callable[..., int], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """After its grace it gets SIGKILL."""
    mark = tmp_path / "ignores"

    def once_it_ignores() -> RunNewsInfo:
        while not mark.exists():
            time.sleep(0.005)
        return news("agent_revoked")

    script = f"trap '' TERM; touch {mark}; while :; do sleep 0.01; done"
    code = commanded("sh", "-c", script, answers=(once_it_ignores,))
    assert code == 128 + signal.SIGKILL
    assert "coder is stopped: its agent was revoked" in capfd.readouterr().err


@pytest.mark.parametrize(
    "gone", [UnreachableError("no broker answers"), NotFoundError("no such run")]
)
def test_without_its_broker_a_command_is_stopped(
    commanded: Callable[..., int], gone: Exception
) -> None:
    """Nothing it could do would be decided: a broker that is gone stops it."""
    code = commanded("sleep", "600", answers=(gone,))
    assert code == 128 + signal.SIGTERM


def test_a_new_token_takes_the_place_of_the_old_one(
    commanded: Callable[..., int], tmp_path: Path
) -> None:
    """The file is whole at any time, and the command needs no new environment."""
    module.write_token(tmp_path, "av_t_one")
    script = f"until grep -q av_t_two {tmp_path}/token; do sleep 0.01; done; exit 3"
    code = commanded("sh", "-c", script, answers=(news(token="av_t_two"), news()))
    assert code == 3
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_inherited_proxies_and_authorities_are_not_passed_on(tmp_path: Path) -> None:
    """What would lead around the proxy or weaken its check is left out or replaced."""
    inherited = {
        "PATH": "/bin",
        "Https_Proxy": "http://elsewhere",
        "npm_config_https_proxy": "http://elsewhere",
        "npm_config_noproxy": "*",
        "PIP_PROXY": "http://elsewhere",
        "NO_PROXY": "*",
        "FTP_PROXY": "http://elsewhere",
        "SSL_CERT_FILE": "/old.pem",
        "SSL_CERT_DIR": "/old",
        "NODE_TLS_REJECT_UNAUTHORIZED": "0",
        "GIT_SSL_NO_VERIFY": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "a",
    }
    given = environment(inherited, info(), tmp_path)
    assert "elsewhere" not in str(given)
    assert "/old" not in str(given)
    assert given["PATH"] == "/bin"
    assert not {"NODE_TLS_REJECT_UNAUTHORIZED", "GIT_SSL_NO_VERIFY"} & given.keys()
    assert given["GIT_CONFIG_COUNT"] == "3"
    assert given["GIT_CONFIG_KEY_0"] == "user.name"
    assert given["GIT_CONFIG_KEY_2"] == "http.proxyAuthMethod"
    proxy = "http://agent:av_r_key@127.0.0.1:7718"
    assert given["GIT_CONFIG_VALUE_1"] == given["PIP_PROXY"] == proxy
    assert given["HTTPS_PROXY"] == given["http_proxy"] == given["ALL_PROXY"] == proxy
    assert given["NO_PROXY"] == given["no_proxy"] == "127.0.0.1:7717"
    assert given["NODE_EXTRA_CA_CERTS"].endswith("/ca.pem")
    assert given["REQUESTS_CA_BUNDLE"].endswith("/ca-bundle.pem")
    assert given["MY_API_BASE_URL"] == "http://127.0.0.1:7717/gw/my-api"


def test_what_a_command_did_is_told_in_one_line() -> None:
    """Calls, held and refused; tunnels where there were any."""
    assert summary(news()) == "0 calls, 0 held, 0 refused"


def test_replaced_authorities_hold_the_systems_too(behind: Run) -> None:
    """A bundle in the place of the system's has both; one beside it has ours alone."""
    show = "cat $SSL_CERT_FILE | grep -c BEGIN; grep -c BEGIN $NODE_EXTRA_CA_CERTS"
    both, ours = map(int, behind("sh", "-c", show).out.split())
    assert ours == 1
    assert both > 20
