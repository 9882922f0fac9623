"""What docs/troubleshooting.md quotes is what the programs say."""

from __future__ import annotations

import re
from pathlib import Path

from support.pages import DOCS
from support.vault import PAYMENT, Vault

PAGE = (DOCS / "troubleshooting.md").read_text()


def quoted(section: str) -> list[str]:
    """Return the first column's quotations in a section's table."""
    _, _, after = PAGE.partition(f"## {section}\n")
    table, _, _ = after.partition("\n## ")
    rows = re.findall(r"^\| (?:\d+ )?`([^`]+)`", table, re.MULTILINE)
    assert rows
    return rows


def unsaid(quotations: list[str], said: str) -> list[str]:
    """Return the quotations that are not in *said*; ``…`` is any text."""
    flat = " ".join(said.split())
    return [
        one
        for one in quotations
        if not re.search(re.escape(one).replace("…", "[^\n]*"), flat)
    ]


def test_what_stops_a_start_is_quoted_as_it_is_said(
    vault: Vault, tmp_path: Path
) -> None:
    """Each message of the table is had from a command that fails so."""
    port = vault.ready["agents_url"].rpartition(":")[2]
    homes = {name: tmp_path / name for name in ("none", "open", "misspelt", "shared")}
    for name in ("open", "misspelt", "shared"):
        homes[name].mkdir(mode=0o700)
    homes["open"].chmod(0o722)
    (homes["misspelt"] / "config.toml").write_text("[tokens]\nlaese = 5\n")
    (homes["shared"] / "policy.cedar").touch(0o600)
    (homes["shared"] / "policy.cedar").chmod(0o666)
    homes["shared"].chmod(0o755)
    said = [
        vault.cli("serve"),
        vault.cli("agents", "list", "--home", str(homes["none"])),
        vault.cli(
            "serve", "--listen", f"127.0.0.1:{port}", "--home", str(homes["none"])
        ),
        vault.cli("doctor", "--home", "/tmp"),  # noqa: S108 - refused as a home
        vault.cli("doctor", "--home", str(homes["open"])),
        vault.cli("serve", "--home", str(tmp_path / ("x" * 100))),
        vault.cli("serve", "--home", str(homes["misspelt"])),
        vault.cli("serve", "--home", str(homes["shared"])),
    ]
    text = " ".join(done.stdout + done.stderr for done in said)
    assert unsaid(quoted("Starting"), text) == [
        "this terminal cannot draw the console (TERM is dumb or not set)"
    ]


def test_what_an_agent_is_told_is_quoted_as_it_is_said(vault: Vault) -> None:
    """Each refusal of the table is had from a request that is refused so."""
    agent = vault.register("page-agent", "send:payment", "read:files")
    said = [
        agent.http.post("/oauth/token", data={"grant_type": "client_credentials"}),
        agent.token("read:moon"),
        agent.token("read:email"),
        agent.http.post("/oauth/token", auth=(agent.id, "wrong")),
        agent.http.post("/oauth/token", headers={"host": "broker.acme.test"}),
    ]
    for amount in range(4):
        more = {"parameters": {"amount": amount, "currency": "USD"}}
        said.append(agent.token("send:payment", {**PAYMENT, **more}))
    denied = {"id": said[-2].json()["auth_req_id"], "decision": "deny", "reason": ""}
    vault.operator.post("/api/agents/stepup", json=denied)
    said.append(agent.token("send:payment", PAYMENT))
    vault.cli("agents", "revoke", "page-agent")
    said.append(agent.token("read:files"))
    told = " ".join(reply.json().get("error_description", "") for reply in said)
    assert unsaid(quoted("An agent is refused"), told) == ["certificate verify failed"]
