"""`agentvault tls`, and `serve` with what it made."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Answer, plain_environment
from support.forked import Forked
from support.patience import PATIENT

from agentvault_tui.web import local_ca

Run = Callable[..., Answer]


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "h")


def area(answer: Answer) -> list[dict[str, Any]]:
    return [item for item in answer.json["findings"] if item["area"] == "tls"]


@pytest.mark.slow
def test_serve_speaks_https_to_who_takes_the_printed_environment(
    cli: Run, home: str
) -> None:
    """An agent with that environment, and no code of ours, is served."""
    made = cli("--home", home, "tls", "init", "--json").json
    env = plain_environment(**made["environment"])
    line = ("--home", home, "serve", "--listen", "127.0.0.1:0")
    with Forked(line, plain_environment()) as process:
        url = json.loads(process.stdout.readline())["agents_url"]
        assert url.startswith("https://127.0.0.1:")
        code = f"import httpx; print(httpx.get('{url}/healthz').json()['status'])"
        agent = [sys.executable, "-c", code]
        done = subprocess.run(
            agent, env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "ok"
        process.terminate()
        assert process.wait(PATIENT) == 0


def test_init_prints_what_an_agent_needs_and_renews(cli: Run, home: str) -> None:
    """The lines can be pasted; a second run keeps the authority."""
    first = cli("--home", home, "tls", "init")
    assert first.code == 0
    ca = str(Path(home) / "keys" / "tls-ca.pem")
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"):
        assert f"export {name}={ca}\n" in first.out
    second = cli("--home", home, "tls", "init", "--json").json
    assert second["new_ca"] is False
    shown = cli("--home", home, "tls", "show", "--json").json
    assert shown["sha256"] == second["sha256"]
    assert shown["names"] == ["localhost", "127.0.0.1", "::1"]
    assert "PRIVATE" not in first.out + first.err + json.dumps(shown)


def test_who_has_agents_that_use_http_is_told_before_they_are_refused(
    cli: Run, home: str
) -> None:
    """At the making of the first certificate, and not when it is renewed."""
    told = "agents are served at https:// alone from the next start"
    assert told in cli("--home", home, "tls", "init").err
    assert told not in cli("--home", home, "tls", "init").err


def test_a_certificate_for_other_machines_leaves_the_agents_listener_as_it_is(
    cli: Run, home: str
) -> None:
    """It is where settings name it, is renewed by its own name, and serves phones."""
    line = ("--home", home, "tls", "init", "--public")
    first = cli(*line, "--name", "ops.example", "--json").json
    assert first["cert"] == str(Path(home) / "tls" / "cert.pem")
    assert first["names"] == ["localhost", "127.0.0.1", "::1", "ops.example"]
    second = cli(*line, "--json").json
    assert (second["names"], second["new_ca"]) == (first["names"], False)
    assert second["sha256"] != first["sha256"]
    assert (Path(home) / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert cli("--home", home, "tls", "show").code == 4
    (Path(home) / "config.toml").write_text(
        '[tenant]\nlisten = "127.0.0.1:7443"\nurl = "https://ops.example:7443/"\n'
        'tls_cert = "tls/cert.pem"\ntls_key = "tls/key.pem"\n'
    )
    found = area(cli("--home", home, "doctor", "--json"))
    assert [one["level"] for one in found] == ["ok", "ok"]
    assert "agents use plain http" in json.dumps(found)


def test_an_authority_that_agents_trust_is_replaced_with_their_certificate(
    cli: Run, home: str
) -> None:
    """One for other machines alone would leave them with nothing that verifies."""
    cli("--home", home, "tls", "init")
    cert = Path(home) / "keys" / "tls-cert.pem"
    before = cert.read_bytes()
    new = ("--name", "ops.example", "--new-ca")
    refused = cli("--home", home, "tls", "init", "--public", *new)
    assert refused.code == 1
    assert "agents trust this authority" in refused.err
    assert cert.read_bytes() == before
    cli("--home", home, "tls", "init", *new)
    assert cli("--home", home, "tls", "init", "--public", *new[:2]).code == 0


def test_the_authority_is_printed_for_agents_of_other_users(
    cli: Run, home: str
) -> None:
    """`tls show --ca` is one certificate in PEM, to be sent into a file."""
    cli("--home", home, "tls", "init")
    pem = cli("--home", home, "tls", "show", "--ca").out
    assert pem == (Path(home) / "keys" / "tls-ca.pem").read_text()
    assert pem.startswith("-----BEGIN CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (("tls", "show"), 4, "agentvault tls init"),
        (("tls", "show", "--ca"), 2, "cannot be read"),
        (("tls", "init", "--name", "*.test"), 2, "no name of a host"),
        (("tls", "init", "--name", "a\x1b[2J"), 2, "no name of a host"),
        (("tls", "init", "--public"), 2, "tls init --public --name NAME"),
        (("serve", "--tls"), 2, "there is no certificate"),
        (("serve", "--tls-cert", "c.pem"), 2, "named together"),
        (("serve", "--tls-cert", "c.pem", "--tls-key", "k.pem"), 2, "cannot be read"),
    ],
)
def test_bad_input_is_one_line(
    cli: Run, home: str, line: tuple[str, ...], code: int, said: str
) -> None:
    """What cannot be done says why and what to do, and makes nothing."""
    answer = cli("--home", home, *line)
    assert answer.code == code
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert answer.err.rstrip("\n").isprintable()
    assert not list(Path(home).glob("keys/tls-*"))


@pytest.mark.slow
def test_doctor_reports_when_the_certificate_ends(
    cli: Run, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time, soon and over are ok, a warning and a fault, each with the remedy."""
    found = {}
    for days in (365, 10, 0):
        life = timedelta(days=days) - timedelta(minutes=1)
        monkeypatch.setattr(local_ca, "LEAF_LIFE", life)
        cli("--home", home, "tls", "init")
        leaf, ca = area(cli("--home", home, "doctor", "--json"))
        found[days] = (leaf["level"], leaf["remedy"])
        assert ca["level"] == "ok"
    renew = "agentvault tls init"
    assert found == {365: ("ok", ""), 10: ("warning", renew), 0: ("fault", renew)}


def test_the_doctor_names_what_serve_would_refuse(cli: Run, home: str) -> None:
    """An open key is a fault; a certificate for elsewhere a warning; plain is ok."""
    (plain,) = area(cli("--home", home, "doctor", "--json"))
    assert plain["level"] == "ok"
    cli("--home", home, "tls", "init")
    (Path(home) / "config.toml").write_text('[broker]\nlisten = "127.0.0.9:7717"\n')
    levels = [item["level"] for item in area(cli("--home", home, "doctor", "--json"))]
    assert levels == ["ok", "warning", "ok"]
    (Path(home) / "keys" / "tls-key.pem").chmod(0o640)
    (fault,) = area(cli("--home", home, "doctor", "--json"))
    assert fault["level"] == "fault"
    assert "chmod 0600" in fault["remedy"]
