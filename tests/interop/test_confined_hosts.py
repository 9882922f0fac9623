"""Claude Code and Codex, unmodified, inside a run that they cannot leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from interop.test_agent_hosts import HOSTS, IMAGE, INSTALLED, SERVER, SHARED, connected
from support.command_line import PROGRAM
from support.confining import need_confinement
from support.patience import PATIENT
from support.peers import NODE
from support.scripted_model import Call, Model, scripted_model
from support.vault import Vault, serving

CONFINED = [one for one in INSTALLED if one.values[0] in {"claude-code", "codex"}]
MODEL = """
origin = "{url}"
allow_http = true
allow_private = true
unmatched = "read:web"
method_override = false
"""
LEAVE = "curl -sS -m 5 --noproxy '*' http://93.184.216.34"
START = {
    "claude-code": "ANTHROPIC_AUTH_TOKEN=$(cat $AGENTVAULT_TOKEN_FILE)"
    " ANTHROPIC_BASE_URL=$MODEL_BASE_URL CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1"
    " ENABLE_TOOL_SEARCH=false exec {program} -p go --mcp-config"
    " $HOME/agentvault-mcp.json --allowedTools Read,Write,Bash,mcp__files__read_file",
    "codex": "MODEL_KEY=$(cat $AGENTVAULT_TOKEN_FILE) exec {program} exec"
    " --skip-git-repo-check --dangerously-bypass-hook-trust -c 'model_provider=\"m\"'"
    ' -c "model_providers.m={{name=\\"m\\",base_url=\\"$MODEL_BASE_URL/v1\\",'
    'env_key=\\"MODEL_KEY\\"}}" -c \'model="m"\' go',
}


@pytest.fixture
def vault(short: Path) -> Iterator[Vault]:
    """A vault whose hooks do not wait, with an MCP server."""
    home = short / "vault"
    (home / "mcp").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    peer = Path(__file__).parent.parent / "support/mcp_peer.py"
    words = (json.dumps(str(word)) for word in (sys.executable, peer, short / "log"))
    (home / "mcp/files.toml").write_text(SERVER % tuple(words))
    with serving(home, AGENTVAULT_GATEWAY_HOOK_WAIT="0") as opened:
        yield opened


def run(vault: Vault, project: Path, name: str, model: Model) -> str:
    """Run a host confined until it ends; return what it printed."""
    home = ("--home", str(vault.home))
    folder = vault.home / "services"
    folder.mkdir(exist_ok=True)
    (folder / "model.toml").write_text(MODEL.format(url=model.url))
    environment = {"PATH": os.environ["PATH"], "HOME": str(project.parent)}
    environment |= {"LANG": "C.UTF-8"}
    connect = (*PROGRAM, *home, "connect", name, "--agent", "coder", "--confined")
    subprocess.run([*connect, "--write"], env=environment, check=True)
    line = START[name].format(program=f"{NODE} {HOSTS[name].program.resolve()}")
    packages = {one for one in sys.path if one.endswith("site-packages")}
    reads = [w for one in (str(SHARED.resolve()), *packages) for w in ("--read", one)]
    words = (*PROGRAM, *home, "run", "--agent", "coder", "--confine", *reads)
    ended = subprocess.run(
        [*words, "--", "sh", "-c", line],
        env=environment,
        cwd=project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1.5 * PATIENT,
        check=False,
    )
    return ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFINED)
def test_a_confined_host_works_and_does_not_leave(
    short: Path, vault: Vault, name: str
) -> None:
    """Its tools are decided by the hook, an MCP server answers by the gateway, and a
    command that a person approved reaches nothing but AgentVault."""
    need_confinement()
    vault.register("coder", "read:files", "execute:command", "read:web", "run:tests")
    host, project = HOSTS[name], short / "person/project"
    project.mkdir(parents=True)
    (project / "a.png").write_bytes(IMAGE)
    tool, argument = host.shell
    server_tool, namespace = host.server_tool
    known = partial(connected, short / "log")
    with scripted_model(
        Call(*host.read(project / "a.png")),
        Call(*host.ungranted(project / "ungranted")),
        # By its answer the server's tools are known, and are there in the next turn.
        Call(tool, {argument: LEAVE}, known),
        Call(server_tool, {"path": "/shared"}, namespace=namespace),
    ) as model:
        printed = run(vault, project, name, model)
    told = model.results
    assert len(told) == 4, (told, printed)
    assert "AgentVault" not in told[0], told
    assert "Not granted to this agent" in told[1]
    assert "A person has to approve" in told[2]
    assert "/shared" in told[3]
    assert "0 outside" in printed.splitlines()[-1], printed
    assert not (project / "ungranted").exists()
