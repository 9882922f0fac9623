"""`agentvault services`: files checked and imported, requests tried at a broker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from support.command_line import Agent, Answer, Broker
from support.service_files import TRANSFERS

Run = Callable[..., Answer]
FILE = f"""
origin = "https://api.stripe.test"
[credential]
kind = "bearer"
secret = "stripe-cli"
{TRANSFERS}"""


@pytest.fixture
def stripe(broker: Broker) -> Iterator[Path]:
    """A service file in the home of the running broker, which reads it when asked."""
    with broker.service("stripe", FILE) as path:
        yield path


def test_a_request_is_tried_and_not_sent(
    av: Run, agent: Agent, stripe: Path, tmp_path: Path
) -> None:
    """Route, action, parameters and decision of a form, and no step-up comes of it."""
    body = tmp_path / "transfer.txt"
    body.write_text("amount=4200&currency=usd")
    line = ["services", "try", "stripe", "POST", "/v1/transfers/acct_42"]
    line += ["--agent", agent.name, "--body", str(body)]
    waiting = ("stepup", "list", "--agent", agent.id, "--json")
    answer = av(*line, "--json")
    assert answer.code == 0
    told = answer.json
    assert told["error"] is None
    assert told["route"]["path"] == "/v1/transfers/{destination}"
    assert (told["scope"], told["resource"]) == ("send:payment", "stripe:acct_42")
    assert told["parameters"] == {"amount": 4200, "currency": "USD"}
    assert told["decision"]["decision"] == "escalated"
    assert told["decision"]["rule"] == "payments-need-step-up"
    assert "payments-need-step-up" in av(*line).out
    assert av(*waiting).json["stepups"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("POST", "/v1/transfers/../payouts", "", "bad_path"),
        ("GET", "/v1/transfers/acct_42", "", "no_route"),
        (
            "POST",
            "/v1/transfers/acct_42",
            '{"amount": 1, "amount": 2}',
            "ambiguous_body",
        ),
    ],
)
def test_a_refused_request_says_why(
    av: Run,
    agent: Agent,
    stripe: Path,
    tmp_path: Path,
    *,
    method: str,
    path: str,
    body: str,
    error: str,
) -> None:
    """What the gateway refuses before policy exits 1 with the code it would send."""
    file = tmp_path / "body"
    file.write_text(body)
    line = ["services", "try", "stripe", method, path, "--agent", agent.id]
    answer = av(*line, "--body", str(file), "--json")
    assert answer.code == 1
    assert answer.json["error"].startswith(error)


def test_calls_without_a_route_are_drafted(av: Run, agent: Agent, stripe: Path) -> None:
    """The draft is printed, and nothing is written; without calls there is none."""
    before = stripe.read_text()
    assert "has its route" in av("services", "learn", "stripe").err
    token = agent.ask("read:calendar", {})["access_token"]
    answer = httpx.get(
        f"{agent.broker.url}/gw/stripe/v9/things/4711",
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
    )
    assert answer.json()["reason"] == "no_route"
    told = av("services", "learn", "stripe")
    assert (told.code, 'path = "/v9/things/{thing}"' in told.out) == (0, True)
    (route,) = av("services", "learn", "stripe", "--json").json["routes"]
    assert (route["method"], route["calls"]) == ("GET", 1)
    assert stripe.read_text() == before
    assert av("services", "learn", "nonsense").code == 4


def test_services_are_listed_and_shown(av: Run, stripe: Path) -> None:
    """Origin, credential's kind, health and routes; never a secret."""
    listed = av("services", "list", "--json").json["services"]
    (one,) = (service for service in listed if service["name"] == "stripe")
    assert one["credential"] == {
        "kind": "bearer",
        "secret": "stripe-cli",
        "connection": None,
    }
    assert one["health"] == "broken"
    assert "agentvault secrets set stripe-cli" in one["problem"]
    shown = av("services", "show", "stripe")
    assert "/v1/transfers/{destination}" in shown.out
    assert "amount = body:/amount" in shown.out
    assert "https://api.stripe.test" in av("services", "list").out
    assert av("services", "show", "nothing").code == 4
    assert av("services", "try", "nothing", "GET", "/", "--agent", "x").code == 4


def test_cases_and_further_resources_are_shown(av: Run, broker: Broker) -> None:
    """`show` lists a case before its route, and all resources of a route."""
    case = '[[routes.cases]]\nwhen = { "query:to" = "board*" }\nscope = "deny"\n'
    route = (
        'origin = "https://cal.test"\n[[routes]]\nmethod = "POST"\npath = "/{day}"\n'
        'scope = "write:calendar"\nresource = ["day:{day}", "day:{query:to}"]\n'
    )
    with broker.service("cal", route + case):
        cased, plain = av("services", "show", "cal", "--json").json["routes"]
        listed = av("services", "list", "--json").json["services"]
    assert (cased["scope"], cased["when"]) == ("deny", "query:to is board*")
    assert (plain["when"], plain["also"]) == ("", ["day:{query:to}"])
    assert "cal" in [one["name"] for one in listed]


def test_a_broken_file_is_told_by_list(av: Run, stripe: Path) -> None:
    """The problem of a broken file stands beside the service that stays in force."""
    stripe.write_text(FILE.replace("origin", "orign"))
    listed = av("services", "list", "--json").json
    assert "did you mean origin" in listed["problems"]["stripe.toml"]
    assert av("services", "list").out.count("did you mean origin") == 1


def test_a_missing_secret_is_named_by_list(av: Run, broker: Broker) -> None:
    """The list says why a service is broken."""
    text = FILE.replace("stripe-cli", "not-set")
    with broker.service("no-secret", text):
        (line,) = (
            one
            for one in av("services", "list").out.splitlines()
            if one.startswith("fault no-secret.toml: ")
        )
    assert "not-set" in line


@pytest.mark.slow
def test_check_needs_no_broker(cli: Run, tmp_path: Path) -> None:
    """Good files exit 0 with what is not set yet, broken ones 1 with the reason."""
    home = ("--home", str(tmp_path))
    assert cli(*home, "services", "check", "--json").json == {
        "ok": True,
        "services": [],
    }
    (tmp_path / "services").mkdir()
    good = tmp_path / "services" / "stripe.toml"
    good.write_text(FILE.replace("https://api.stripe.test", "https://10.0.0.1"))
    answer = cli(*home, "services", "check", "stripe", "--json")
    assert answer.code == 0
    (told,) = answer.json["services"]
    assert (told["ok"], told["routes"]) == (True, 1)
    assert [note.split(":")[0] for note in told["notes"]] == [
        "the secret stripe-cli is not set",
        "the origin is no public address",
    ]
    broken = tmp_path / "broken.toml"
    broken.write_text(FILE.replace("send:payment", "send:paymnet"))
    answer = cli(*home, "services", "check", str(broken))
    assert answer.code == 1
    assert "did you mean send:payment" in answer.out
    broken.rename(good.with_name("broken.toml"))
    found = cli(*home, "doctor", "--json").json["findings"]
    said = {f["level"]: f["what"] for f in found if f["area"] == "services"}
    assert said["ok"] == "services/stripe.toml: 1 routes"
    assert "did you mean send:payment" in said["fault"]
    assert said["warning"].startswith("services/stripe.toml: ")
    assert cli(*home, "services", "check", "nothing").code == 4
    assert cli(*home, "services", "check", str(tmp_path / "no.toml")).code == 4


@pytest.mark.slow
def test_a_shipped_file_is_imported_once(cli: Run, tmp_path: Path) -> None:
    """It is copied under the name that is asked for, and replaced by --force alone."""
    line = ("--home", str(tmp_path / "h"), "services", "import")
    answer = cli(*line, "stripe", "--json")
    path = tmp_path / "h" / "services" / "stripe.toml"
    assert answer.code == 0
    assert answer.json["written"] == str(path)
    assert answer.json["secrets"] == ["stripe-live"]
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("mine")
    again = cli(*line, "stripe")
    assert again.code == 1
    assert path.read_text() == "mine"
    assert cli(*line, "stripe", "--force").code == 0
    assert "origin" in path.read_text()
    other = cli(*line, "ghe", "--shipped", "github", "--origin", "https://ghe.test")
    assert other.code == 0
    assert (tmp_path / "h/services/ghe.toml").read_text().count("https://ghe.test") == 1
    assert cli(*line, "nothing").code == 4
    assert cli(*line, "../stripe").code == 2
    assert cli(*line, "x", "--shipped", "stripe", "--origin", "nonsense").code == 1


def test_an_openapi_document_is_imported(cli: Run, tmp_path: Path) -> None:
    """Its operations are routes of a file that check takes."""
    document = tmp_path / "shop.json"
    paths = {"/orders": {"get": {}, "post": {}}}
    document.write_text(
        json.dumps(
            {
                "openapi": "3.1.0",
                "servers": [{"url": "https://shop.test/v1"}],
                "paths": paths,
            }
        )
    )
    home = ("--home", str(tmp_path / "h"))
    line = (*home, "services", "import", "shop", "--openapi", str(document))
    assert cli(*line).code == 0
    assert cli(*line).code == 1
    answer = cli(*home, "services", "check", "shop", "--json")
    assert answer.json["services"][0]["routes"] == 2
    document.write_text("{}")
    broken = cli(*line, "--force")
    assert broken.code == 2
    assert "no OpenAPI 3 document" in broken.err
    assert cli(*home, "services", "check", "shop").code == 0
    assert cli(*line[:-1], str(tmp_path / "no.json")).code != 0


class Leaving(BaseHTTPRequestHandler):
    """Answers without reading a body, as programs on Python's own server often do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_OPTIONS = do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def leaving() -> Iterator[int]:
    """Return the port of a service that leaves bodies unread."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Leaving)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_probe_says_what_it_showed(
    av: Run, broker: Broker, leaving: int, stripe: Path
) -> None:
    """Exit 1 for a service that leaves bodies unread; else, that nothing is proved."""
    text = f'origin = "http://127.0.0.1:{leaving}"\nallow_http = true\n'
    with broker.service("leaving", text + "allow_private = true\n"):
        shown = av("services", "check", "leaving", "--probe")
        assert (shown.code, "leave drains_bodies out" in shown.out) == (1, True)
        told = av("services", "check", "leaving", "--probe", "--json")
        assert (told.code, told.json["leaves_unread"]) == (1, True)
    refused = f'origin = "http://127.0.0.1:{leaving}"\nallow_http = true\n'
    with broker.service("refused", refused):
        unknown = av("services", "check", "refused", "--probe")
        assert (unknown.code, "proves nothing" in unknown.out) == (0, True)
        assert "upstream_refused" in unknown.out
    assert av("services", "check", "--probe").code == 2
    assert av("services", "check", "missing", "--probe").code not in {0, 2}
