"""What leaves for each kind of sink: whole, signed, and inert."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.alert_stand import WEBHOOK_SECRET, AlertStand, answering
from support.bench import OPERATOR, PAYMENT, Bench
from support.gateway_stand import Upstream, endless
from support.patience import PATIENT
from support.tls_front import trusted

from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.errors import NotForOriginError, SealedError
from agentvault_tui.gateway.secrets import Secrets
from agentvault_tui.model import Action
from agentvault_tui.vault import Secret
from agentvault_tui.watch import LedgerWatch
from agentvault_tui.watch.config import SinkTable
from agentvault_tui.watch.messages import inert, trial_message
from agentvault_tui.watch.senders import EmailSender, SinkError
from agentvault_tui.web.local_ca import CaFiles

HOSTILE = (
    "<!channel> <http://evil.test|click> *bold* @here\r\nBcc: x@evil.test "
    "\x1b[31m`code` evil.test https://evil.test/a"
)
ROUTES = 'sinks = ["{}"]\nevents = ["needs_person"]\ndetails = true'


async def hostile_stepup(bench: Bench) -> None:
    """Escalate a request whose every word is an attack."""
    agent = await bench.agent("<!here> http://evil.test")
    action = Action(
        PAYMENT.scopes,
        PAYMENT.action,
        f"stripe:{HOSTILE}"[:90],
        {**PAYMENT.parameters, "note": HOSTILE},
        HOSTILE,
    )
    await request_token(bench.broker, agent, action, resource=None, details=None)


def assert_inert(text: str) -> None:
    for dangerous in ("http://", "https://", "evil.test", "@here", "\x1b", "\r"):
        assert dangerous not in text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("https://evil.test/a", "https:[//]evil[.]test/a"),
        ("bob@evil.test", "bob(at)evil[.]test"),
        ("42.50 10.0.0.1 v1.2", "42.50 10.0.0.1 v1.2"),
        ("a\nb\x1b", "a⏎b⟦U+001B⟧"),
        ("stripe:acct_42", "stripe:acct_42"),
    ],
)
def test_addresses_are_broken_up(raw: str, shown: str) -> None:
    """Links, mail addresses and mentions are text; numbers and ids stay as they are."""
    assert inert(raw) == shown


async def test_slack_gets_plain_text_alone(stand: AlertStand, bench: Bench) -> None:
    """No block reads markup, nothing is unfurled, the fallback is escaped."""
    stand.secrets["slack"] = f"{stand.url}/services/T0/B0/key"
    sink = '[sinks.ops]\nkind="slack"\nurl_secret="slack"\nallow_private=true\n'
    await stand.start(ROUTES.format("ops"), sinks=sink)
    await hostile_stepup(bench)
    await stand.settle()
    (request,) = stand.server.received
    assert request.target == "/services/T0/B0/key"
    body = json.loads(request.body)
    assert (body["unfurl_links"], body["unfurl_media"]) == (False, False)
    assert body["mrkdwn"] is False
    assert not {"<", ">"} & set(body["text"])
    texts = [block["text"] for block in body["blocks"]]
    assert {text["type"] for text in texts} == {"plain_text"}
    assert not any(text["emoji"] for text in texts)
    assert_inert(request.body.decode())
    said = "\n".join(text["text"] for text in texts)
    assert "agentvault stepup show sup_" in said
    assert "Fingerprint: " in said


async def test_the_page_opens_from_each_sink(
    stand: AlertStand, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a phone can open the step-up, its link is one tap away, and no other is."""
    page = "https://ops.example:7443/approve/sup_1"
    monkeypatch.setattr("agentvault_tui.watch.messages.approval_page", lambda *_: page)
    stand.secrets["slack"] = f"{stand.url}/slack"
    sinks = (
        '[sinks.ops]\nkind="slack"\nurl_secret="slack"\nallow_private=true\n'
        f'[sinks.phone]\nkind="ntfy"\nurl="{stand.url}/topic"\nallow_private=true\n'
    )
    routes = 'sinks = ["ops", "phone", "hook"]\nevents = ["needs_person"]'
    await stand.start(routes, sinks=sinks)
    await hostile_stepup(bench)
    await stand.settle()
    got = {one.target: one for one in stand.server.received}
    slack = json.loads(got["/slack"].body)
    urls = [e["url"] for b in slack["blocks"] for e in b.get("elements", ())]
    assert urls == [page]
    assert got["/topic"].header("click") == page
    assert json.loads(got["/in"].body)["data"]["page"] == page


@given(st.text(max_size=200))
def test_no_text_makes_a_link_or_mention(raw: str) -> None:
    """Whatever an agent writes: one line, no address, nothing hidden."""
    shown = inert(raw)
    assert "://" not in shown
    assert "@" not in shown
    assert shown.isprintable()
    assert not re.search(r"[^\W\d_][.]\w|\w[.][^\W\d_]", shown)


async def test_webhooks_are_signed_as_the_standard_says(
    stand: AlertStand, bench: Bench
) -> None:
    """Id, time and body are under the signature, and the time is now."""
    await stand.start(ROUTES.format("hook"))
    await hostile_stepup(bench)
    await stand.settle()
    (request,) = stand.server.received
    stamp = request.header("webhook-timestamp")
    assert stamp == str(int(bench.clock.now().timestamp()))
    key = base64.b64decode(WEBHOOK_SECRET.removeprefix("whsec_"))
    signed = f"{request.header('webhook-id')}.{stamp}.".encode() + request.body
    made = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert request.header("webhook-signature") == f"v1,{made}"
    assert set(json.loads(request.body)) == {"type", "timestamp", "data"}
    assert_no_secret(stand, request.body)


def assert_no_secret(stand: AlertStand, said: bytes) -> None:
    for secret in stand.secrets.values():
        assert secret.encode() not in said


async def test_ntfy_has_no_agent_text_in_headers(
    stand: AlertStand, bench: Bench
) -> None:
    """Title and priority are our own words, the rest is the body, in bounds."""
    stand.secrets["ntfy"] = "tk_secret"
    sink = (
        f'[sinks.phone]\nkind="ntfy"\nurl="{stand.url}/topic"\ntoken="ntfy"\n'
        "allow_private=true\n"
    )
    await stand.start(ROUTES.format("phone"), sinks=sink)
    await hostile_stepup(bench)
    await stand.settle()
    (request,) = stand.server.received
    assert request.target == "/topic"
    assert request.header("authorization") == "Bearer tk_secret"
    assert request.header("title") == "A person has to decide"
    assert request.header("priority") == "high"
    assert "evil" not in str(request.headers)
    assert_inert(request.body.decode())
    assert "wants to pay 4200 USD" in request.body.decode().splitlines()[0]
    assert len(request.body) <= 4_096


class Smtp:
    """An SMTP server that keeps what it received."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.to: list[str] = []
        self.auth = ""
        self.replies: dict[str, str] = {}
        self.starttls: ssl.SSLContext | None = None
        self.port = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")

        say(self.replies.get("GREETING", "220 smtp.acme.test"))
        while line := (await reader.readline()).decode().strip():
            verb = line.split()[0].upper()
            if verb in self.replies:
                say(self.replies[verb])
            elif verb == "EHLO":
                say("250-smtp.acme.test")
                if self.starttls is not None:
                    say("250-STARTTLS")
                say("250 AUTH PLAIN")
            elif verb == "STARTTLS" and self.starttls is not None:
                say("220 go")
                await writer.drain()
                await writer.start_tls(self.starttls)
            elif verb == "AUTH":
                self.auth = base64.b64decode(line.split()[2]).decode()
                say("235 ok")
            elif verb == "RCPT":
                self.to.append(line.partition(":")[2].strip("<>"))
                say("250 ok")
            elif verb == "DATA":
                say("354 go")
                self.mails.append(await reader.readuntil(b"\r\n.\r\n"))
                say("250 ok")
            else:
                say("250 ok")
        writer.close()


@asynccontextmanager
async def smtp(tls: ssl.SSLContext | None = None) -> AsyncIterator[Smtp]:
    server = Smtp()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def mail_sink(server: Smtp, **more: object) -> SinkTable:
    known: dict[str, object] = {
        "host": "localhost",
        "port": server.port,
        "from_": "vault@acme.test",
        "to": ("ops@acme.test", "sec@acme.test"),
        "tls": False,
        "allow_private": True,
    }
    return SinkTable("email", **(known | more))  # type: ignore[arg-type]


def sender(bench: Bench, sink: SinkTable) -> EmailSender:
    return EmailSender(sink, lambda name, _: Secret(f"the-{name}"), bench.clock)


async def test_mail_is_plain_text_to_all(stand: AlertStand, bench: Bench) -> None:
    """One mail, whose headers hold no word of an agent."""
    async with smtp() as server:
        sink = (
            f'[sinks.mail]\nkind="email"\nhost="127.0.0.1"\nport={server.port}\n'
            'from="vault@acme.test"\nto=["ops@acme.test","sec@acme.test"]\n'
            "tls=false\nallow_private=true\n"
        )
        await stand.start(ROUTES.format("mail"), sinks=sink)
        await hostile_stepup(bench)
        await stand.settle()
        (raw,) = server.mails
        assert server.to == ["ops@acme.test", "sec@acme.test"]
    mail = message_from_bytes(raw, policy=default)
    assert mail.get_content_type() == "text/plain"
    assert mail["Subject"] == "AgentVault: A person has to decide"
    assert "evil" not in str(mail.items())
    assert mail["Bcc"] is None
    assert mail["Auto-Submitted"] == "auto-generated"
    assert_inert(mail.get_content().replace("\r\n", "\n"))
    assert "agentvault stepup show" in mail.get_content()


@pytest.mark.parametrize("implicit", [True, False])
async def test_mail_goes_over_verified_tls(bench: Bench, *, implicit: bool) -> None:
    """With a certificate of its own authority, by STARTTLS or from the first byte."""
    tls, _, _ = trusted(bench.home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.files.cert, tls.files.key)
    ca = CaFiles.of(bench.home).ca.read_text()
    message = trial_message(bench.broker, "mail")
    async with smtp(context if implicit else None) as server:
        server.starttls = None if implicit else context
        kind = "implicit" if implicit else "starttls"
        good = mail_sink(
            server, tls=kind, authorities=ca, username="u", password="mail-key"
        )
        await sender(bench, good).send(message)
        assert server.auth == "\0u\0the-mail-key"
        unknown = mail_sink(server, tls=kind)
        with pytest.raises(SinkError, match="TLS with it failed"):
            await sender(bench, unknown).send(message)
        assert len(server.mails) == 1


async def test_mail_without_starttls_is_not_sent(bench: Bench) -> None:
    """A server that offers none, as one in the middle would, is told no word."""
    async with smtp() as server:
        sink = mail_sink(server, tls="starttls", username="u", password="key")
        with pytest.raises(SinkError):
            await sender(bench, sink).send(trial_message(bench.broker, "mail"))
        assert (server.mails, server.auth) == ([], "")


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("GREETING", "554 no"),
        ("MAIL", "451 later"),
        ("RCPT", "550 nobody"),
        ("DATA", "452 full"),
    ],
)
async def test_mail_that_is_refused_is_a_failure(
    bench: Bench, verb: str, reply: str
) -> None:
    """Whatever the server refuses, the alert is to be sent again."""
    async with smtp() as server:
        server.replies[verb] = reply
        with pytest.raises(SinkError):
            await sender(bench, mail_sink(server)).send(
                trial_message(bench.broker, "mail")
            )


async def test_a_mail_server_that_says_nothing_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent or endless greeting ends in time, and its thread with it."""
    monkeypatch.setattr("agentvault_tui.watch.senders.SECONDS", 0.2)

    over = asyncio.Event()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await endless(writer, b"220-more\r\n")
        writer.transport.abort()
        over.set()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    server = Smtp()
    server.port = listening.sockets[0].getsockname()[1]
    with pytest.raises(SinkError):
        await sender(bench, mail_sink(server)).send(trial_message(bench.broker, "mail"))
    await asyncio.wait_for(over.wait(), PATIENT)
    listening.close()


async def test_https_needs_a_certificate_that_holds(
    stand: AlertStand, bench: Bench
) -> None:
    """A sink over TLS is verified; an unknown authority gets nothing."""
    tls, _, _ = trusted(bench.home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.files.cert, tls.files.key)
    server = Upstream(answering(200))
    await server.start(context)
    where = f'url="https://localhost:{server.port}/"\nsecret="hook"\n'
    sinks = "".join(
        f'[sinks.{name}]\nkind="webhook"\n{where}allow_private=true\n{more}'
        for name, more in (
            ("known", f'ca_file="{CaFiles.of(bench.home).ca}"\n'),
            ("unknown", ""),
        )
    )
    await stand.start('sinks = ["hook"]\nevents = ["panic.on"]', sinks=sinks)
    assert (await stand.alerts.try_sink("known")).ok
    refused = await stand.alerts.try_sink("unknown")
    assert (refused.ok, refused.problem) == (False, "TLS with it failed")
    assert len(server.received) == 1
    await server.stop()


async def test_a_secret_url_that_turns_bad_is_not_told(
    stand: AlertStand, bench: Bench, tmp_path: Path
) -> None:
    """A problem names no secret: neither Slack's URL nor a webhook's key."""
    stand.secrets |= {"slack": "http://10.0.0.1/T0/very-secret", "hook": "no base64!"}
    sink = '[sinks.ops]\nkind="slack"\nurl_secret="slack"\n'
    await stand.start('sinks = ["hook"]\nevents = ["panic.on"]', sinks=sink)
    for name in ("ops", "hook"):
        tried = await stand.alerts.try_sink(name)
        assert not tried.ok
        assert "secret" in str(tried.problem)
        for secret in stand.secrets.values():
            assert secret not in str(tried.problem)


class _Sealed(dict[str, str]):
    def __getitem__(self, name: str) -> str:
        raise SealedError("the team's key is not here", "agentvault team key import")


async def test_a_sink_whose_secret_does_not_open_says_so(stand: AlertStand) -> None:
    """Without its key a try is an error of its own; with it again the sink answers."""
    right, stand.secrets = stand.secrets, _Sealed(hook="")
    await stand.start('sinks = ["hook"]\nevents = ["panic.on"]')
    with pytest.raises(SealedError):
        await stand.alerts.try_sink("hook")
    stand.secrets = right
    assert (await stand.alerts.try_sink("hook")).ok


ELSEWHERE = {
    "webhook": 'kind="webhook"\nurl="{url}/in"\nsecret="key"\n',
    "slack": 'kind="slack"\nurl_secret="key"\n',
    "ntfy": 'kind="ntfy"\nurl="{url}/topic"\ntoken="key"\n',
    "otlp": 'kind="otlp"\nendpoint="{url}"\nheaders_secret="key"\n',
    "email": (
        'kind="email"\nhost="127.0.0.1"\nport={port}\nfrom="a@acme.test"\n'
        'to="b@acme.test"\nusername="a"\npassword="key"\n'
    ),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize("listed", ["elsewhere", "https", "port", "none", "here"])
async def test_a_sink_gets_its_secret_where_it_was_meant_to_go_alone(
    bench: Bench,
    server: Upstream,
    kind: str,
    listed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another host, scheme or port is another place: it is not even connected to."""
    if (kind, listed) == ("email", "here"):  # it waits for a greeting, which is SMTP's
        monkeypatch.setattr("agentvault_tui.watch.senders.SECONDS", 0.2)
    scheme = "smtp" if kind == "email" else "http"
    origins = {
        "elsewhere": [f"{scheme}://elsewhere.test:{server.port}"],
        "https": [f"https://127.0.0.1:{server.port}"],
        "port": [f"{scheme}://127.0.0.1:{server.port - 1}"],
        "none": [],
        "here": [f"{scheme}://127.0.0.1:{server.port}"],
    }[listed]
    url = f"http://127.0.0.1:{server.port}"
    value = f"{url}/T0/B0/x" if kind == "slack" else WEBHOOK_SECRET
    secrets = Secrets(bench.home, bench.clock, {})
    secrets.set("key", value, OPERATOR, origins).write()
    sink = ELSEWHERE[kind].format(url=url, port=server.port)
    text = f"[sinks.ops]\n{sink}allow_private=true\n"
    bench.home.alerts_file.write_text(text)
    watch = LedgerWatch(bench.broker, secrets.open)
    await watch.start()
    try:
        if listed == "here":
            await watch.alerts.try_sink("ops")
        else:
            with pytest.raises(NotForOriginError) as refused:
                await watch.alerts.try_sink("ops")
            assert refused.value.code == "secret_not_for_origin"
            assert value not in refused.value.diagnosis()
    finally:
        await watch.aclose()
    assert (server.connections > 0) is (listed == "here")
