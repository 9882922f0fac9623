"""`agentvault tenant user`: changes of people are judged and recorded."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from support import forked
from support.command_line import plain_environment
from support.forked import Forked
from support.patience import PATIENT

from agentvault_tui.home import Home
from agentvault_tui.settings import Settings
from agentvault_tui.tenant.users import UserStore


class Line:
    """Command lines on one home where roles are ``claim``."""

    def __init__(self, home: Path) -> None:
        self.env = plain_environment(
            AGENTVAULT_HOME=str(home), AGENTVAULT_OPERATORS_ROLES="claim"
        )
        self.folder = home.parent

    def __call__(
        self, *argv: str, given: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        return forked.run(*argv, env=self.env, given=given)

    def add(self, name: str, *roles: str) -> dict[str, Any]:
        line = [part for role in roles for part in ("--role", role)]
        answer = self("tenant", "user", "add", name, *line, "--json")
        assert answer.returncode == 0, answer.stderr
        added: dict[str, Any] = json.loads(answer.stdout)
        return added

    def changes(self) -> list[tuple[str, str, str]]:
        """Return who made which change to whom, as the ledger has it."""
        return [
            (body["actor"]["name"], body["detail"]["change"], body["detail"]["user"])
            for body in self.events("tenant.user_changed")
        ]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a type."""
        path = self.folder / "export.jsonl"
        path.unlink(missing_ok=True)
        assert self("audit", "export", str(path)).returncode == 0
        events = map(json.loads, path.read_text().splitlines())
        bodies = [json.loads(event["body"]) if "body" in event else event
                  for event in events]  # fmt: skip
        return [body for body in bodies if body.get("type") == kind]

    def sign_in(self, person: dict[str, Any]) -> None:
        """Be *person* at the operators' socket."""
        with Forked(("login", "--json"), self.env) as login:
            code = json.loads(login.stdout.readline())["device"]["user_code"]
            file = self.folder / "password"
            file.touch(0o600)
            file.write_text(person["password"])
            otp = pyotp.TOTP(person["otp_secret"]).now()
            line = ("--user", person["user"], "--password-file", str(file), "--yes")
            done = self("tenant", "activate", code, *line, "--otp", otp)
            assert done.returncode == 0, done.stderr
            assert login.wait(PATIENT) == 0


@pytest.fixture
def line(short_home: Path) -> Line:
    return Line(short_home)


@pytest.fixture
def short_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("p") / "h"


@pytest.mark.slow
def test_people_are_changed_by_approvers_alone_and_on_record(line: Line) -> None:
    """Neither a viewer nor the absence of a broker is a way around the role."""
    ann = line.add("ann", "approver")  # Nobody has the role yet.
    refused = line("tenant", "user", "add", "eve", "--approver")
    assert refused.returncode == 3
    assert "agentvault login" in refused.stderr
    with Forked(("serve", "--listen", "127.0.0.1:0"), line.env) as broker:
        assert broker.stdout.readline()
        local = line.changes()[0][0]
        for change in (
            ("add", "eve", "--approver"),
            ("role", "ann", "viewer"),
            ("password", "ann"),
            ("otp", "ann"),
            ("remove", "ann"),
        ):
            refused = line("tenant", "user", *change)
            assert (refused.returncode, "approver" in refused.stderr) == (1, True)
        line.sign_in(ann)
        vic = line.add("vic", "viewer")
        assert line("tenant", "user", "role", "vic", "operator").returncode == 0
        line.sign_in({**vic})
        refused = line("tenant", "user", "role", "vic", "approver")
        assert refused.returncode == 1
        assert "vic is operator" in refused.stderr
        listed = json.loads(line("tenant", "user", "list", "--json").stdout)["users"]
        roles = {person["name"]: person["roles"] for person in listed}
        assert roles == {"ann": ["approver"], "vic": ["operator"]}
        broker.terminate()
        assert broker.wait(PATIENT) == 0
    assert line.changes() == [
        (local, "added", "ann"),
        ("ann", "added", "vic"),
        ("ann", "role", "vic"),
    ]


@pytest.mark.slow
def test_every_change_of_people_has_its_event(line: Line) -> None:
    """Also with no broker running, where roles are not claimed."""
    line.env["AGENTVAULT_OPERATORS_ROLES"] = "auto"
    before = line.add("ann", "approver")
    reset = json.loads(line("tenant", "user", "password", "ann", "--json").stdout)
    assert reset.keys() == {"user", "password"}
    assert reset["password"] != before["password"]
    otp = json.loads(line("tenant", "user", "otp", "ann", "--json").stdout)
    assert otp["otp_secret"] != before["otp_secret"]
    assert line("tenant", "user", "role", "ann").returncode == 2
    none = line("tenant", "user", "role", "ann", "--none", "--json")
    assert json.loads(none.stdout)["roles"] == []
    assert line("tenant", "user", "remove", "ann").returncode == 0
    assert line("tenant", "user", "remove", "ann").returncode == 4
    changes = ("added", "password", "factor", "role", "removed")
    assert [(change, user) for _, change, user in line.changes()] == [
        (change, "ann") for change in changes
    ]


@pytest.mark.slow
def test_without_a_broker_nobody_becomes_an_approver_where_a_factor_is_asked_for(
    line: Line,
) -> None:
    """Who ends the broker that would ask for it gets no further by it."""
    line.env["AGENTVAULT_OPERATORS_ROLES"] = "auto"
    line.env["AGENTVAULT_CHANGES_SOCKET"] = "factor"
    line.add("ann", "approver")
    refused = line("tenant", "user", "add", "mallory", "--role", "approver")
    assert refused.returncode == 3
    assert "takes an approver's factor" in refused.stderr
    assert line("tenant", "user", "password", "ann").returncode == 3
    assert [user for _, _, user in line.changes()] == ["ann"]
    # Rights are taken without a factor, which is needed all the same after that.
    line.add("vic")
    assert line("tenant", "user", "role", "ann", "viewer").returncode == 0
    refused = line("tenant", "user", "add", "mallory", "--role", "approver")
    assert refused.returncode == 3


@pytest.mark.slow
def test_without_a_broker_nothing_is_loosened_where_a_factor_is_asked_for(
    line: Line,
) -> None:
    """No secret is set, none of a destination removed; else the event says so."""
    line.env["AGENTVAULT_OPERATORS_ROLES"] = "auto"
    secrets = ("secrets", "set", "pager", "--for", "https://pager.test")
    assert line(*secrets, given=b"https://pager.test/a").returncode == 0
    home = Path(line.env["AGENTVAULT_HOME"])
    (home / "alerts.toml").write_text(
        '[sinks.pager]\nkind = "slack"\nurl_secret = "pager"\n'
    )
    line.env["AGENTVAULT_CHANGES_SOCKET"] = "factor"
    line.add("ann", "approver")
    for refused in (
        line(*secrets, given=b"https://pager.test/b"),
        line("secrets", "remove", "pager"),
    ):
        assert refused.returncode == 3
        assert "takes an approver's factor" in refused.stderr
    assert line("secrets", "rotate-key").returncode == 0
    told = [
        (body["reason"], body["detail"].get("loosened", {}).get("kinds"))
        for body in line.events("secret.changed")
    ]
    assert told == [("set", ["secrets"]), ("key rotated", None)]


@pytest.mark.slow
def test_without_a_broker_the_settings_of_its_last_start_count(line: Line) -> None:
    """A command's weaker environment adds no approver and sets no secret."""
    secret = ("secrets", "set", "api", "--for", "https://api.test")
    add = ("tenant", "user", "add", "mallory", "--approver")
    line.add("ann", "approver")
    weak = {"AGENTVAULT_OPERATORS_ROLES": "auto", "AGENTVAULT_CHANGES_SOCKET": "uid"}
    elsewhere = {
        "AGENTVAULT_TENANT_ISSUER": "https://other.test/",
        "AGENTVAULT_TENANT_CLIENT_ID": "x",
    }

    def started(**settings: str) -> None:
        line.env.update(weak | settings)
        with Forked(("serve", "--listen", "127.0.0.1:0"), line.env) as broker:
            assert broker.stdout.readline()
            broker.terminate()
            assert broker.wait(PATIENT) == 0

    def refused(words: str, **weaker: str) -> None:
        line.env.update(weaker)
        for command in (add, secret):
            answer = line(*command, given=b"https://api.test/a")
            assert (answer.returncode, words in answer.stderr) == (3, True), command

    started(AGENTVAULT_CHANGES_SOCKET="factor")
    refused("takes an approver's factor", AGENTVAULT_CHANGES_SOCKET="uid")
    line.env.update(elsewhere)  # as if nobody could approve
    answer = line(*secret, given=b"https://api.test/a")
    assert (answer.returncode, "takes an approver" in answer.stderr) == (3, True)
    line.env = {key: one for key, one in line.env.items() if key not in elsewhere}
    started(AGENTVAULT_OPERATORS_ROLES="claim")
    refused("agentvault login", AGENTVAULT_OPERATORS_ROLES="auto")
    # The strictest counts, and a start with weaker settings is on record.
    started()
    assert line(*secret, given=b"https://api.test/a").returncode == 0
    kinds = [
        one["detail"]["loosened"]["kinds"] for one in line.events("change.applied")
    ]
    assert kinds[-1] == ["rules"]
    assert [user for _, _, user in line.changes()] == ["ann"]


def public(line: Line, host: str) -> None:
    """Have phones reach the tenant of the home as *host*."""
    home = Path(line.env["AGENTVAULT_HOME"])
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "config.toml").write_text(
        f'[tenant]\nlisten = "127.0.0.1:7443"\nurl = "https://{host}:7443/"\n'
        'tls_cert = "cert.pem"\ntls_key = "key.pem"\n'
    )


@pytest.mark.slow
def test_passkeys_are_invited_listed_removed_and_bound_to_a_host(line: Line) -> None:
    """A link needs a host name, or a broker here; a new host takes no old passkeys."""
    line.env["AGENTVAULT_OPERATORS_ROLES"] = "auto"
    line.add("ann", "approver")
    refused = line("tenant", "user", "passkey", "ann")
    assert refused.returncode == 3
    assert "no broker answers" in refused.stderr
    public(line, "192.168.1.7")
    assert line("tenant", "user", "passkey", "ann").returncode == 2
    public(line, "ops.example")
    told = json.loads(line("tenant", "user", "passkey", "ann", "--json").stdout)
    assert told["link"].startswith("https://ops.example:7443/passkey/")
    assert told["expires_in"] == 600
    home = Home.locate(line.env["AGENTVAULT_HOME"])
    with UserStore(home, Settings()) as users:
        for key, host in (("key-1", "ops.example"), ("key-2", "ops.example")):
            users._store.insert(
                "passkeys",
                id=key,
                sub=users.named("ann").sub,
                public_key=b"",
                counter=0,
                synced=0,
                host=host,
                created_at="2026-11-24T10:00:00Z",
            )
    (ann,) = json.loads(line("tenant", "user", "list", "--json").stdout)["users"]
    assert [one["id"] for one in ann["passkeys"]] == ["key-1", "key-2"]
    assert line("tenant", "user", "passkey", "ann", "--remove", "no").returncode == 4
    assert line("tenant", "user", "passkey", "ann", "--remove", "key-1").returncode == 0
    public(line, "new.example")
    stopped = line("serve", "--listen", "127.0.0.1:0")
    assert stopped.returncode == 2
    assert "passkeys (1) are for ops.example" in stopped.stderr
    assert "--forget-passkeys" in stopped.stderr
    # It forgets them, and then stops at the certificate, which is not there.
    gone = line("serve", "--listen", "127.0.0.1:0", "--forget-passkeys")
    assert "key.pem cannot be read" in gone.stderr
    (ann,) = json.loads(line("tenant", "user", "list", "--json").stdout)["users"]
    assert ann["passkeys"] == []
    changes = [change for _, change, _ in line.changes()]
    assert changes == ["added", "passkey", *["passkey_removed"] * 2]


@pytest.mark.slow
def test_a_rotation_of_keys_without_a_broker_is_recorded(line: Line) -> None:
    """By whom, as each change of a person is."""
    assert line("tenant", "rotate-keys").returncode == 0
    assert line("tenant", "rotate-keys", "--revoke").returncode == 0
    events = line.events("tenant.keys_changed")
    assert [one["action"] for one in events] == ["rotated", "revoked"]
    assert {one["actor"]["kind"] for one in events} == {"operator"}
