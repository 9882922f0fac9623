"""`agentvault hook`: each host's calls are read, and each is answered in its words."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.cli import hook, host_files
from agentvault_tui.cli.hook_hosts import PROGRAM
from agentvault_tui.gateway import hooks
from agentvault_tui.gateway.tools import SHIPPED, parse_tools, shipped_tools
from agentvault_tui.policy import shipped_catalogue

NO = {"outcome": "denied", "reason": "policy_forbids", "message": "It may not."}
YES = {"outcome": "allowed", "reason": "granted", "message": "It may."}
APPROVED = {**YES, "reason": "stepup_approved"}
HELD = {
    "outcome": "escalated",
    "reason": "stepup_required",
    "message": "It is risky.",
    "auth_req_id": "sup_1",
}


class Stand:
    """Answers like the broker, and keeps what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answer: bytes = _reply(200, YES)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "run" / "agentvault.sock"))
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def close(self) -> None:
        """End the thread first: it could accept at another socket of that number."""
        with suppress(OSError):  # it is closed already
            self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rb") as file:
                target = file.readline().split()[1].decode()
                head = list(iter(file.readline, b"\r\n"))
                (size,) = [int(h.split()[1]) for h in head if b"Length" in h]
                self.asked.append((target, json.loads(file.read(size))))
                peer.sendall(self.answer)


def _reply(status: int, body: object) -> bytes:
    text = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(text), text)


@pytest.fixture(autouse=True)
def just_started() -> Iterator[None]:
    """A hook's time counts from the start of its process, which is older here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hook, "_age_s", lambda: 0.0)
        for host in hook.HOSTS.values():
            if host.project:
                patched.setenv(host.project, "/srv")
        yield


@pytest.fixture
def stand(short: Path) -> Iterator[Stand]:
    (short / "run").mkdir()
    stand = Stand(short)
    yield stand
    stand.close()


@contextmanager
def fed(raw: bytes) -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Put *raw* on standard input, and take what is written."""
    kept = sys.stdin, sys.stdout, sys.stderr
    out, err = io.StringIO(), io.StringIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(raw))
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        sys.stdin, sys.stdout, sys.stderr = kept


EVENTS = {
    "claude-code": "PreToolUse",
    "codex": "PreToolUse",
    "gemini": "BeforeTool",
    "cursor": "preToolUse",
}


def run(folder: Path, host: str, call: object) -> tuple[int, Any, str]:
    """Run one hook in this process: exit code, what it printed, standard error."""
    if isinstance(call, dict) and host in EVENTS:
        call = {"hook_event_name": EVENTS[host], **call}
    raw = call if isinstance(call, bytes) else json.dumps(call).encode()
    with fed(raw) as (out, err):
        code = hook.main([host, "--agent", "coder", f"--home={folder}"])
    assert code is not None
    text = out.getvalue()
    return code, json.loads(text) if text else None, err.getvalue()


CALLS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "claude-code": (
        {
            "hook_event_name": "PreToolUse",
            "tool_name": "Bash",
            "tool_input": {"command": "ls"},
            "cwd": "/srv",
            "tool_use_id": "x",
        },
        "Bash",
        {"command": "ls"},
    ),
    "codex": (
        {
            "hook_event_name": "PreToolUse",
            "tool_name": "Bash",
            "tool_input": {"command": "ls"},
            "cwd": "/srv",
        },
        "Bash",
        {"command": "ls"},
    ),
    "cursor": (
        {"hook_event_name": "beforeShellExecution", "command": "ls", "cwd": "/srv"},
        "Shell",
        {"command": "ls"},
    ),
    "gemini": (
        {
            "hook_event_name": "BeforeTool",
            "tool_name": "run_shell_command",
            "tool_input": {"command": "ls"},
            "cwd": "/srv",
        },
        "run_shell_command",
        {"command": "ls"},
    ),
    "copilot": (
        {"toolName": "bash", "toolArgs": '{"command": "ls"}', "cwd": "/srv"},
        "bash",
        {"command": "ls"},
    ),
}


@pytest.mark.parametrize("host", SHIPPED)
def test_a_call_is_asked_about_as_the_host_tells_it(
    short: Path, stand: Stand, host: str
) -> None:
    """Tool, arguments and folder reach the broker; the shipped map knows the tool."""
    call, tool, arguments = CALLS[host]
    run(short, host, call)
    ((target, asked),) = stand.asked
    assert target == f"/api/hooks/{host}"
    assert asked.pop("places") == [["", "", False, "/srv", "project", False, True]]
    commands = asked.pop("commands")
    if host in {"codex", "copilot"}:  # which may run it elsewhere
        assert commands is None
    else:
        assert [(one["words"], one["cwd"]) for one in commands] == [(["ls"], "/srv")]
    assert asked == {
        "agent": "coder",
        "tool": tool,
        "arguments": arguments,
        "omitted": [],
        "cwd": "/srv",
        "reason": "",
        "mcp_server": "",
        "mcp_tool": "",
        "wait": True,
        "reaches_vault": "",
    }
    known = parse_tools(host, shipped_tools(host), shipped_catalogue())
    assert any(rule.matches.fullmatch(tool) for rule in known.rules)


@pytest.mark.parametrize(
    ("host", "tool", "given"),
    [
        ("claude-code", "Bash", {"command": "rm x", "cmd": "ls"}),
        ("claude-code", "Bash", {"cmd": "ls"}),
        ("claude-code", "Bash", {"command": "ls", "workdir": "src"}),
        ("claude-code", "Bash", {"command": "ls", "dangerouslyDisableSandbox": True}),
        ("claude-code", "Bash", {"command": ["ls"]}),
        ("claude-code", "Monitor", {"command": "ls"}),
        ("codex", "Bash", {"command": "ls"}),
        ("codex", "exec_command", {"cmd": "cd /srv && ls", "command": "rm x"}),
        ("codex", "exec_command", {"cmd": "cd /srv && ls", "workdir": "x"}),
        ("codex", "exec_command", {"cmd": "cd /srv && ls", "tty": True}),
        ("codex", "shell", {"command": ["ls"]}),
        ("gemini", "run_shell_command", {"command": "ls", "dir_path": ".."}),
        ("copilot", "bash", {"command": "cd /srv && ls", "sessionId": "x"}),
        ("copilot", "powershell", {"command": "ls"}),
    ],
)
def test_only_the_line_that_the_host_runs_is_read(
    short: Path, stand: Stand, host: str, tool: str, given: dict[str, Any]
) -> None:
    """An argument that changes which line runs, or where, leaves it a command."""
    call = {"tool_name": tool, "tool_input": given, "cwd": "/srv"}
    run(short, host, call)
    assert stand.asked[0][1]["commands"] is None


@pytest.mark.parametrize("host", ["codex", "copilot"])
def test_where_the_folder_is_not_told_the_line_names_it(
    short: Path, stand: Stand, host: str
) -> None:
    """Codex runs a command in a `workdir` that it does not state to hooks."""
    given = {"command": "cd /srv && ls"}
    tool = "bash" if host == "copilot" else "Bash"
    run(short, host, {"tool_name": tool, "tool_input": given, "cwd": "/srv"})
    (command,) = stand.asked[0][1]["commands"]
    assert (command["words"], command["cwd"]) == (["ls"], "/srv")


@pytest.mark.parametrize("host", ["claude-code", "cursor", "gemini"])
def test_the_project_is_the_one_that_the_host_names(
    short: Path, stand: Stand, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Never the folder of a call, which an agent may choose; none is no project."""
    call = {"tool_name": "Read", "tool_input": {"file_path": "/etc/x"}, "cwd": "/etc"}
    run(short, host, call)
    monkeypatch.delenv(str(hook.HOSTS[host].project))
    run(short, host, call)
    run(short, host, {**call, "workspace_roots": ["/etc"]})
    wheres = [asked["places"][-1][4] for _, asked in stand.asked]
    last = "project" if host == "cursor" else "outside"
    assert wheres == ["outside", "outside", last]


def test_a_path_next_to_a_patch_counts_as_a_file(short: Path, stand: Stand) -> None:
    """Copilot's Edit goes by one or the other."""
    patch = "*** Begin Patch\n*** Add File: a\n+x\n*** End Patch"
    given = {"patch": patch, "path": "b", "file_path": "c"}
    run(short, "copilot", {"tool_name": "Edit", "tool_input": given})
    arguments = stand.asked[0][1]["arguments"]
    assert arguments["written"] == arguments["files"] == ["a", "b", "c"]
    assert arguments["deleted"] == []


def test_a_result_that_copilot_tells_of_is_no_call(short: Path, stand: Stand) -> None:
    """Its own format does not name the event."""
    call = {"toolName": "bash", "toolArgs": "{}", "toolResult": {}}
    assert run(short, "copilot", call)[0] == 2
    assert not stand.asked


def pre(decision: str, why: str) -> dict[str, Any]:
    return {
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": decision,
            "permissionDecisionReason": why,
        }
    }


def cursor_no(why: str) -> dict[str, Any]:
    return {"permission": "deny", "user_message": why, "agent_message": why}


WORDS: dict[str, dict[str, Any]] = {
    "claude-code": {"yes": {}, "approved": pre("allow", "It may.")},
    "codex": {"yes": None, "approved": None},
    "cursor": {"yes": {"permission": "allow"}, "approved": {"permission": "allow"}},
    "gemini": {"yes": {"decision": "allow"}, "approved": {"decision": "allow"}},
    "copilot": {
        "yes": {},
        "approved": {
            "permissionDecision": "allow",
            "permissionDecisionReason": "It may.",
        },
    },
}


def denial(host: str, why: str) -> dict[str, Any]:
    match host:
        case "claude-code" | "codex":
            return pre("deny", why)
        case "cursor":
            return cursor_no(why)
        case "gemini":
            return {"decision": "deny", "reason": why}
    return {"permissionDecision": "deny", "permissionDecisionReason": why}


@pytest.mark.parametrize("host", SHIPPED)
def test_each_answer_is_in_the_words_of_its_host(
    short: Path, stand: Stand, host: str
) -> None:
    """Yes, approved by a person, no, and held; exit code 0 with one JSON object."""
    call = CALLS[host][0]
    for answer, told in (
        (YES, WORDS[host]["yes"]),
        (APPROVED, WORDS[host]["approved"]),
        (NO, denial(host, "It may not.")),
    ):
        stand.answer = _reply(200, answer)
        assert run(short, host, call) == (0, told, "")
    stand.answer = _reply(200, HELD)
    code, told, _ = run(short, host, call)
    assert code == 0
    assert "sup_1" in json.dumps(told)
    assert "deny" in json.dumps(told)


@pytest.mark.parametrize("host", ["claude-code", "codex", "copilot"])
def test_a_permission_request_is_answered(short: Path, stand: Stand, host: str) -> None:
    """The question whether it may is answered, with the reason for a no."""
    event = "PermissionRequest"
    call = {"hook_event_name": event, "tool_name": "Bash", "tool_input": {}}
    refusal = {"behavior": "deny", "message": "It may not."}
    for answer, told in ((YES, {"behavior": "allow"}), (NO, refusal)):
        stand.answer = _reply(200, answer)
        if host == "copilot":
            wanted: dict[str, Any] = told
        else:
            inner = {"hookEventName": event, "decision": told}
            wanted = {"hookSpecificOutput": inner}
        assert run(short, host, call) == (0, wanted, "")


def refuses(host: str, code: int, told: Any, err: str) -> bool:
    """Tell whether the host takes an answer for a no, by the page of its hooks."""
    said = json.dumps(told)
    match host:
        case "claude-code" | "gemini":
            return (code == 2 and bool(err)) or (code == 0 and '"deny"' in said)
        case "codex":
            return code == 0 and '"deny"' in said
        case "cursor":
            return '"deny"' in said
    return code == 2 or (code == 0 and '"deny"' in said)


RUBBISH: list[bytes] = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"{" * 100_000,
    b"\xff\xfe{}",
    b'{"tool_name":"Bash","tool_name":"Read"}',
    b'{"tool_name":7,"toolName":7,"hook_event_name":"beforeMCPExecution"}',
    b'{"tool_name":"Bash","toolName":"bash","tool_input":"{","toolArgs":"{"}',
    b'{"tool_name":"Bash","toolName":"bash","tool_input":[1],"toolArgs":[1]}',
    b'{"hook_event_name":["PreToolUse"],"tool_name":"Bash","tool_input":{}}',
    b'{"tool_name":"x","toolName":"x","tool_input":{"n":1e999},"toolArgs":{"n":NaN}}',
    b" " * (hook.LARGEST + 1),
]


@pytest.mark.parametrize("host", SHIPPED)
@pytest.mark.parametrize("raw", RUBBISH, ids=range(len(RUBBISH)))
def test_rubbish_is_a_no(short: Path, stand: Stand, host: str, raw: bytes) -> None:
    """What cannot be read lets nothing through, and nobody is asked."""
    assert refuses(host, *run(short, host, raw))
    assert stand.asked == []


@given(st.sampled_from(SHIPPED), st.binary(max_size=60) | st.text().map(str.encode))
def test_any_bytes_are_a_no(host: str, raw: bytes) -> None:
    """No input makes the hook crash, or say yes without the broker."""
    assert refuses(host, *run(Path("/nonexistent"), host, raw))


@pytest.mark.parametrize("host", SHIPPED)
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 X\r\n\r\nallowed",
        b"HTTP/1.1 200 X\r\n\r\n[]",
        b"HTTP/1.1 200 X\r\n\r\n{}",
        b'HTTP/1.1 500 X\r\n\r\n{"outcome":"allowed"}',
        _reply(404, {"detail": "there is no agent 'coder'"}),
        _reply(503, {"detail": "nothing can be recorded"}),
    ],
)
def test_a_hook_denies_when_the_broker_answers_rubbish(
    short: Path, stand: Stand, host: str, answer: bytes
) -> None:
    """Only an allowed outcome with status 200 is a yes."""
    stand.answer = answer
    assert refuses(host, *run(short, host, CALLS[host][0]))


@pytest.mark.parametrize("host", SHIPPED)
def test_without_a_broker_it_is_a_no(short: Path, host: str) -> None:
    """The reason says what to start."""
    code, told, err = run(short, host, CALLS[host][0])
    assert refuses(host, code, told, err)
    assert "agentvault serve" in json.dumps(told) + err


def test_a_broker_that_hangs_is_a_no(
    short: Path, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook answers before its host gives it up."""
    stand.close()
    (short / "run" / "agentvault.sock").unlink()
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(str(short / "run" / "agentvault.sock"))
    silent.listen()
    monkeypatch.setattr(hook, "DEADLINE_S", 0.2)
    with silent:
        code, told, err = run(short, "copilot", CALLS["copilot"][0])
    assert refuses("copilot", code, told, err)


@pytest.mark.parametrize("host", SHIPPED)
@pytest.mark.parametrize("event", ["Stop", "SessionStart", "PostToolUse", "x"])
def test_an_event_that_is_no_tool_call_is_exit_2(
    short: Path, stand: Stand, host: str, event: str
) -> None:
    """A hook that is configured for an event it cannot decide says so, and asks not."""
    call = {"hook_event_name": event, "tool_name": "x", "tool_input": {}}
    code, told, err = run(short, host, call)
    assert (code, told) == (2, None)
    assert event in err
    assert not stand.asked


@pytest.mark.parametrize("host", SHIPPED)
def test_a_host_that_never_ends_its_call_is_answered(
    short: Path, stand: Stand, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """The deadline counts while standard input is read, too."""
    monkeypatch.setattr(hook, "DEADLINE_S", 0.2)
    reading, writing = os.pipe()
    kept, sys.stdin = sys.stdin, os.fdopen(reading)
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    try:
        code = hook.main([host, "--agent", "coder", f"--home={short}"])
    finally:
        sys.stdin.close()
        sys.stdin = kept
        os.close(writing)
    assert code is not None
    told = json.loads(out.getvalue()) if out.getvalue() else None
    assert refuses(host, code, told, err.getvalue())
    assert "no answer" in out.getvalue() + err.getvalue()


def test_it_answers_five_seconds_before_any_host_gives_it_up() -> None:
    """VS Code waits 30 s by default; the others what `connect` writes, 60 s."""
    assert min(30, host_files.TIMEOUT_S) - 5 >= hook.DEADLINE_S
    assert hooks._WAIT_S < hook.DEADLINE_S


@pytest.mark.slow
def test_its_time_counts_from_the_start_of_its_process() -> None:
    """The time to load the program counts against the host's limit."""
    code = (
        "import time; from agentvault_tui.cli import hook; began = time.monotonic();"
        "before = hook._age_s(); sum(range(3_000_000)); after = hook._age_s();"
        "print(0 < before < after, after - before <= time.monotonic() - began + 0.05)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True True\n"


@pytest.mark.parametrize("host", SHIPPED)
def test_a_call_above_256_kib_is_denied_with_that_reason(
    short: Path, stand: Stand, host: str
) -> None:
    """It is denied, and no part of it is sent."""
    call = json.dumps({**CALLS[host][0], "more": "x" * (256 * 1024)}).encode()
    code, told, err = run(short, host, call)
    assert refuses(host, code, told, err)
    assert "256 KiB" in json.dumps(told) + err
    assert not stand.asked


def test_cursor_names_mcp_tools_and_servers(short: Path, stand: Stand) -> None:
    """The tool is MCP:NAME; which server it is, is among the arguments."""
    call = {
        "hook_event_name": "beforeMCPExecution",
        "tool_name": "query",
        "tool_input": '{"sql": "select 1"}',
        "url": "http://127.0.0.1:7717/mcp/db",
    }
    run(short, "cursor", call)
    asked = stand.asked[0][1]
    assert asked["tool"] == "MCP:query"
    assert asked["arguments"] == {
        "sql": "select 1",
        "mcp_server": {"url": "http://127.0.0.1:7717/mcp/db"},
    }


@pytest.mark.parametrize(
    ("host", "call"),
    [
        ("codex", {"tool_name": "apply_patch", "tool_input": {"command": "%s"}}),
        ("copilot", {"toolName": "apply_patch", "toolArgs": "%s"}),
    ],
)
def test_the_files_of_a_patch_can_be_counted(
    short: Path, stand: Stand, host: str, call: dict[str, Any]
) -> None:
    """Each file once: policy holds a change of many, or of unknown many."""
    patch = (
        "*** Begin Patch\n*** Update File: a.py\n*** Move to: b.py\n@@\n-x\n+y\n"
        "*** Delete File: c.py\n*** Add File: a.py\n*** End Patch\n"
    )
    text = json.dumps(call).replace("%s", json.dumps(patch)[1:-1])
    run(short, host, json.loads(text))
    arguments = stand.asked[0][1]["arguments"]
    assert arguments["files"] == ["a.py", "b.py", "c.py"]
    assert arguments["written"] == ["a.py", "b.py"]
    assert arguments["deleted"] == ["a.py", "c.py"]


@pytest.mark.parametrize(
    "patch",
    [
        "*** Begin Patch\n  *** Delete File: x  \n*** End Patch",
        "*** Begin Patch\r\n*** Delete File: x\r\n*** End Patch",
        "<<'EOF'\n*** Begin Patch\n\t*** Delete File: x\n*** End Patch\nEOF",
        "*** Begin Patch\n*** Add File: y\n+1\n\u3000*** Delete File: x\n*** End Patch",
        "*** Begin Patch\n***  delete  file : x\n*** End Patch",
        ["apply_patch", "*** Begin Patch\n*** Delete File: x\n*** End Patch"],
    ],
)
@pytest.mark.parametrize("name", ["command", "input", "patch"])
def test_a_padded_header_of_a_patch_counts(
    short: Path, stand: Stand, patch: object, name: str
) -> None:
    """Codex trims the line before it reads it, and so does the hook."""
    call = {"tool_name": "apply_patch", "tool_input": {name: patch}}
    run(short, "codex", call)
    assert stand.asked[0][1]["arguments"]["deleted"] == ["x"]


@pytest.mark.parametrize(
    "line",
    [
        "*** Environment ID: other",
        "\t*** ENVIRONMENT  id :other ",
        "***environment id:",
        "*** Environment ID: a b",
    ],
)
def test_a_patch_for_another_environment_names_no_file_of_this_one(
    short: Path, stand: Stand, line: str
) -> None:
    """A person decides: where its files are is not known here."""
    patch = (
        f"*** Begin Patch\n{line}\n*** Add File: src/a\n+x\n"
        "*** Add File: .codex/hooks.json\n+x\n*** Delete File: b\n*** End Patch"
    )
    run(short, "codex", {"tool_name": "apply_patch", "tool_input": {"command": patch}})
    asked = stand.asked[0][1]
    name = line.partition(":")[2].strip()
    assert asked["arguments"]["deleted"] == [f"{name}://b"]
    places = {one[1]: one[3:6] for one in asked["places"] if one[0]}
    assert {text: where for text, (_, where, _) in places.items()} == dict.fromkeys(
        (f"{name}://b", f"{name}://src/a", f"{name}://.codex/hooks.json"), "unknown"
    )
    assert places[f"{name}://.codex/hooks.json"][2]


@pytest.mark.parametrize(
    "given",
    [
        {"command": "*** Begin Patch\n*** End Patch"},
        {"command": "*** Begin Patch\n*** Delete File:\n*** End Patch"},
        {"command": 7},
        {"command": "*** Add File: a\n", "files": []},
        {"files": ["a"], "written": ["a"]},
        {"command": "*** Add File: a\n", "deleted": []},
    ],
)
def test_a_patch_whose_files_are_not_clear_is_a_no(
    short: Path, stand: Stand, given: dict[str, Any]
) -> None:
    """It names none, or its author names them in the hook's place."""
    call = {"tool_name": "apply_patch", "tool_input": given}
    assert refuses("codex", *run(short, "codex", call))
    assert not stand.asked


def test_every_file_of_a_patch_counts(short: Path, stand: Stand) -> None:
    """However many it names."""
    lines = [f"  *** Delete File: f{number}" for number in range(150)]
    patch = "\n".join(["*** Begin Patch", *lines, "*** End Patch"])
    call = {"tool_name": "apply_patch", "tool_input": {"command": patch}}
    run(short, "codex", call)
    assert len(stand.asked[0][1]["arguments"]["files"]) == 150


def test_long_arguments_are_cut_and_named(short: Path, stand: Stand) -> None:
    """The longest first, until a body holds the rest; of each a digest is there."""
    several = {f"n{number}": "y" * 9_000 for number in range(8)}
    long = "x" * 20_000
    arguments = {"path": "/a", "content": long, **several}
    call = {**CALLS["claude-code"][0], "tool_input": arguments}
    run(short, "claude-code", call)
    asked = stand.asked[0][1]
    assert asked["arguments"]["path"] == "/a"
    assert "content" in asked["omitted"]
    assert asked["arguments"]["content"] == {
        "cut": "x" * 2_000,
        "characters": 20_000,
        "sha256": hashlib.sha256(json.dumps(long).encode()).hexdigest(),
    }
    assert len(json.dumps(asked)) < 60_000
    assert len(asked["arguments_sha256"]) == 64


def test_an_argument_with_a_long_name_is_part_of_the_call(
    short: Path, stand: Stand
) -> None:
    """Its name is shortened, with a digest; it counts as shortened, its value stays."""
    for name in ("n" * 201, "n" * 70_000, "m" * 70_000):
        call = {**CALLS["claude-code"][0], "tool_input": {name: "rm", "command": "ls"}}
        run(short, "claude-code", call)
    names = set()
    for _, asked in stand.asked:
        (cut,) = asked["omitted"]
        assert len(cut) < 250
        assert asked["arguments"] == {cut: "rm", "command": "ls"}
        names.add(cut)
    assert len(names) == 3


def test_an_argument_that_is_called_as_a_cut_name_is_a_no(
    short: Path, stand: Stand
) -> None:
    """A person would see one of the two."""
    long = "n" * 201
    call = {**CALLS["claude-code"][0], "tool_input": {long: "rm"}}
    run(short, "claude-code", call)
    (cut,) = stand.asked[0][1]["arguments"]
    code, told, err = run(
        short, "claude-code", {**call, "tool_input": {long: "rm", cut: "ls"}}
    )
    assert refuses("claude-code", code, told, err)
    assert len(stand.asked) == 1


def test_a_call_with_too_many_arguments_is_a_no(short: Path, stand: Stand) -> None:
    """Cut or not, they would not fit."""
    given = {f"n{number}": "" for number in range(5_000)}
    call = {**CALLS["claude-code"][0], "tool_input": given}
    code, told, err = run(short, "claude-code", call)
    assert refuses("claude-code", code, told, err)
    assert "too many arguments" in json.dumps(told)


PROSE = [
    ("claude-code", {"tool_name": "Bash", "tool_input": {"command": "ls"}}),
    ("gemini", {"tool_name": "run_shell_command", "tool_input": {"command": "ls"}}),
    ("copilot", {"tool_name": "bash", "tool_input": {"command": "ls"}}),
]


@pytest.mark.parametrize(("host", "call"), PROSE)
def test_what_the_model_says_of_its_call_is_no_argument(
    short: Path, stand: Stand, host: str, call: dict[str, Any]
) -> None:
    """It is sent apart, so that the same command is compared as the same."""
    call["tool_input"]["description"] = "List files"
    run(short, host, call)
    asked = stand.asked[0][1]
    assert asked["arguments"] == {"command": "ls"}
    assert asked["reason"] == "List files"


def test_each_word_of_a_command_in_words_may_reach_our_home(
    short: Path, stand: Stand
) -> None:
    """Codex's `shell` has a list of words, of which one may be a whole line."""
    line = f"cat {short}/config.toml"
    for words in (["bash", "-lc", line], ["cat", f"{short}/config.toml"]):
        call = {"tool_name": "shell", "tool_input": {"command": words}, "cwd": "/srv"}
        run(short, "codex", call)
    reached = [asked["reaches_vault"] for _, asked in stand.asked]
    assert reached == [f"{short}/config.toml"] * 2


@pytest.mark.parametrize("value", [{"a": 1}, "x" * 501])
def test_what_cannot_be_prose_stays_an_argument(
    short: Path, stand: Stand, value: object
) -> None:
    """Nothing is left out of what is compared that was not shown whole."""
    given = {"command": "ls", "description": value}
    run(short, "claude-code", {"tool_name": "Bash", "tool_input": given})
    assert stand.asked[0][1]["arguments"] == given
    given = {"id": 1, "description": "It fails."}
    run(short, "claude-code", {"tool_name": "mcp__hub__issue", "tool_input": given})
    assert stand.asked[1][1]["arguments"] == given
    given = {"": "It fails.", "id": 1}
    run(short, "claude-code", {"tool_name": "mcp__hub__issue", "tool_input": given})
    assert stand.asked[2][1]["arguments"] == given


def _cursor_mcp(**server: str) -> dict[str, Any]:
    event = "beforeMCPExecution"
    return {"hook_event_name": event, "tool_name": "t", "tool_input": "{}", **server}


OWN = [*PROGRAM, "mcp", "stdio", "files"]
FORMER = str(Path(sys.executable).with_name("agentvault")) + " mcp stdio files"
CONTEXT = {"server_name": "files", "tool_name": "read_it"}
MCP_TOOLS: list[tuple[str, dict[str, Any], tuple[str, str]]] = [
    ("claude-code", {"tool_name": "mcp__files__read"}, ("files", "read")),
    ("codex", {"tool_name": "mcp__files__read"}, ("files", "read")),
    ("claude-code", {"tool_name": "mcp__a__b__read"}, ("", "")),
    ("claude-code", {"tool_name": "mcp__a___read"}, ("", "")),
    (
        "gemini",
        {"tool_name": "mcp_files_read_it", "mcp_context": CONTEXT},
        ("files", "read_it"),
    ),
    ("gemini", {"tool_name": "mcp_files_read_it"}, ("", "")),
    ("copilot", {"toolName": "files-read"}, ("files", "read")),
    ("cursor", _cursor_mcp(command=shlex.join(OWN)), ("files", "t")),
    ("cursor", _cursor_mcp(command=FORMER), ("files", "t")),
    ("cursor", _cursor_mcp(command=f"{FORMER} --home /x"), ("", "t")),
    ("cursor", _cursor_mcp(command=f"{FORMER} --agent a --home=/x"), ("", "t")),
    ("cursor", _cursor_mcp(command="/opt/x mcp stdio files"), ("", "t")),
    ("cursor", _cursor_mcp(command="'"), ("", "t")),
    ("cursor", _cursor_mcp(url="http://a.test/mcp/x"), ("http://a.test/mcp/x", "t")),
]


@pytest.mark.parametrize(("host", "call", "told"), MCP_TOOLS)
def test_the_server_of_an_mcp_tool_is_told(
    short: Path, stand: Stand, host: str, call: dict[str, Any], told: tuple[str, str]
) -> None:
    """As its host names it; what could be split in two ways is told as none."""
    run(short, host, call)
    asked = stand.asked[0][1]
    assert (asked["mcp_server"], asked["mcp_tool"]) == told


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        [],
        ["claude-code"],
        ["nohost", "--agent", "a"],
        ["claude-code", "--agent", "a", "--json"],
        ["claude-code", "b", "--agent", "a"],
        ["claude-code", "--agent"],
    ],
)
def test_other_command_lines_are_left_to_the_command(argv: list[str]) -> None:
    """Help and wrong usage are click's: exit code 2 there is a no for most hosts."""
    assert hook.main(argv) is None
