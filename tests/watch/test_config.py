"""``alerts.toml``: what it may say, and what is refused at once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.errors import ServiceError
from agentvault_tui.home import Home
from agentvault_tui.watch.config import AlertRoute, AlertsFile, SinkTable, parse_alerts

SLACK = '[sinks.ops]\nkind = "slack"\nurl_secret = "slack-hook"\n'
HOOK = '[sinks.hook]\nkind = "webhook"\nsecret = "key"\n'
MAIL = '[sinks.mail]\nkind = "email"\nhost = "smtp.acme.test"\nfrom = "a@acme.test"\n'


def parse(text: str) -> AlertsFile:
    return parse_alerts(text, Home(Path("/srv/home"), Path("/srv/home")))


def refused(text: str) -> str:
    with pytest.raises(ServiceError) as caught:
        parse(text)
    return caught.value.diagnosis()


def test_every_kind_of_sink_is_read() -> None:
    """One of each, with the keys that are documented, and a route with all of its."""
    found = parse(
        SLACK
        + HOOK
        + 'url = "https://hooks.example.com/in?x=1"\n'
        + MAIL
        + 'port = 465\nto = ["b@acme.test", "c@acme.test"]\n'
        + 'username = "u"\npassword = "mail-password"\n'
        + '[sinks.phone]\nkind = "ntfy"\nurl = "https://ntfy.sh/topic"\ntoken = "t"\n'
        + '[sinks.siem]\nkind = "syslog"\naddress = "tls://logs.example.com:6514"\n'
        + '[sinks.otel]\nkind = "otlp"\nendpoint = "https://otel.example.com"\n'
        + 'headers_secret = "otel"\n'
        + '[sinks.file]\nkind = "file"\npath = "/var/log/agentvault.jsonl"\n'
        + '[[routes]]\nsinks = ["ops", "mail"]\nevents = ["needs_person", "panic.on"]\n'
        + 'risk = ["high"]\nagents = ["payments-agent"]\ndetails = true\n'
        + 'digest = "1m"\nquiet = "22:00-07:00 Europe/Berlin"\n'
    )
    assert {name: sink.kind for name, sink in found.sinks.items()} == {
        "ops": "slack",
        "hook": "webhook",
        "mail": "email",
        "phone": "ntfy",
        "siem": "syslog",
        "otel": "otlp",
        "file": "file",
    }
    (route,) = found.routes_to("mail")
    assert route.gathers == timedelta(minutes=1)
    assert found.routes_to("file") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sinks.x]\n", "kind"),
        ('[sinks.x]\nkind = "fax"\n', "kind"),
        ('[sinks.x]\nkind = "slack"\n', "url_secret is missing"),
        (SLACK + 'token = "x"\n', "slack has no token"),
        (SLACK + 'usl = "x"\n', "did you mean url"),
        ('[sinks."A b"]\nkind = "slack"\nurl_secret = "x"\n', "no name for a sink"),
        ('[sinks.x]\nkind="slack"\nurl_secret="https://hooks/x"\n', "a sealed secret"),
        ("sinks = 3\n", "sinks"),
        ("[sinks.x\n", "not TOML"),
        ("[other]\n", "unknown key"),
        (MAIL + 'to = "nobody"\n', "no e-mail address"),
        (MAIL + 'to = "a@b.test\\r\\nBcc: x@y.test"\n', "no e-mail address"),
        (MAIL + 'to = "a@b.test"\nusername = "u"\n', "belong together"),
        (MAIL + 'to = "a@b.test"\ntls = false\n', "without TLS"),
        (MAIL + 'to = "a@b.test"\nport = 70000\n', "no port"),
        ('[sinks.f]\nkind="file"\npath="/srv/home/policy.cedar"\n', "of the home"),
        ('[sinks.f]\nkind="file"\npath="../home/agentvault.db"\n', "of the home"),
    ],
)
def test_a_broken_sink_is_refused(text: str, said: str) -> None:
    """What is missing, odd or unknown is named, with what helps."""
    assert said in refused(text)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://hooks.example.com/",
        "https://user:key@hooks.example.com/",
        "https://169.254.169.254/latest/meta-data",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://127.1/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://localhost/",
        "https://hooks.example.com/#x",
        "https://hooks.example.com/a b",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com:0/",
        "https:///x",
        "hooks.example.com",
        "",
    ],
)
def test_a_url_that_may_not_be_reached_is_refused(url: str) -> None:
    """Other schemes, users and private addresses in any spelling end at the file."""
    assert refused(f'{HOOK}url = "{url}"\n')


def test_private_addresses_and_plain_http_take_a_word() -> None:
    """With allow_private both are taken; many are never."""
    parse(f'{HOOK}url = "http://10.0.0.7:8080/in"\nallow_private = true\n')
    assert refused(f'{HOOK}url = "http://0.0.0.0/"\nallow_private = true\n')
    assert refused(f'{HOOK}url = "http://224.0.0.1/"\nallow_private = true\n')
    assert refused('[sinks.s]\nkind = "syslog"\naddress = "tcp://10.0.0.7"\n')


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ('sinks = ["none"]\nevents = ["panic.on"]', "no sink none"),
        ('sinks = ["ops"]\nevents = ["panics"]', "is no event"),
        ('sinks = ["ops"]', "names no sink, or no event"),
        ('sinks = []\nevents = ["panic.on"]', "names no sink"),
        ('sinks = ["ops"]\nevents = ["panic.on"]\nrisk = "grave"', "risk"),
        ('sinks = ["ops"]\nevents = ["panic.on"]\ndigest = "soon"', "digest"),
        ('sinks = ["ops"]\nevents = ["panic.on"]\ndigest = "0m"', "digest"),
        ('sinks = ["ops"]\nevents = ["panic.on"]\ndigest = "367d"', "digest"),
        ('sinks = ["ops"]\nevents = ["panic.on"]\nquiet = "22-7"', "quiet"),
        (
            'sinks = ["ops"]\nevents = ["panic.on"]\nquiet = "22:00-07:00 Mars/Base"',
            "quiet",
        ),
        ('sinks = ["ops"]\nevents = ["panic.on"]\nquiet = "22:00-22:00 UTC"', "quiet"),
        ('sinks = ["ops"]\nevents = ["panic.on"]\nquiet = "24:00-07:00 UTC"', "quiet"),
        ('sinks = ["ops"]\nevents = ["panic.on"]\nevent = 1', "unknown key 'event'"),
        ('sinks = ["ops"]\nevents = ["needs_person"]\nafter = "soon"', "after"),
        ('sinks = ["ops"]\nevents = ["needs_person"]\nafter = "0s"', "after"),
        ('sinks = ["ops"]\nevents = ["needs_person"]\nafter = "367d"', "after"),
        ('sinks = ["ops"]\nevents = ["panic.on"]\nafter = "2m"', "for requests that"),
        (
            'sinks = ["ops"]\nevents = ["needs_person", "denial_burst"]\nafter = "2m"',
            "for requests that",
        ),
        (
            'sinks = ["ops"]\nevents = ["needs_person"]\nafter = "2m"\ndigest = "1m"',
            "not both",
        ),
    ],
)
def test_a_broken_route_is_refused(route: str, said: str) -> None:
    """A route that names what there is not is told by its number."""
    assert said in refused(f"{SLACK}[[routes]]\n{route}\n")


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ((2026, 11, 24, 20, 59), None),
        ((2026, 11, 24, 21, 0), (2026, 11, 25, 6, 0)),
        ((2026, 11, 25, 5, 59), (2026, 11, 25, 6, 0)),
        ((2026, 11, 25, 6, 0), None),
        # Berlin leaves summer time at 01:00 UTC: the night is an hour longer.
        ((2026, 10, 24, 20, 0), (2026, 10, 25, 6, 0)),
        ((2026, 7, 1, 20, 0), (2026, 7, 2, 5, 0)),
    ],
)
def test_quiet_hours_are_those_of_their_zone(
    now: tuple[int, ...], until: tuple[int, ...] | None
) -> None:
    """22:00 to 07:00 in Berlin, in winter and summer, and over the change."""
    route = AlertRoute(("ops",), quiet="22:00-07:00 Europe/Berlin")
    expected = None if until is None else datetime(*until, tzinfo=UTC)  # type: ignore[misc,arg-type]
    assert route.quiet_until(datetime(*now, tzinfo=UTC)) == expected  # type: ignore[misc,arg-type]


_KEYS = st.sampled_from(
    [*SinkTable.__struct_encode_fields__, *AlertRoute.__struct_encode_fields__, "x"]
)
_VALUES = st.recursive(
    st.text(max_size=20) | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner),
    max_leaves=6,
)


@pytest.mark.slow
@given(st.dictionaries(_KEYS, _VALUES), st.dictionaries(_KEYS, _VALUES))
def test_any_table_is_read_or_refused(sink: object, route: object) -> None:
    """Whatever stands in the file, the answer is what is wrong with it."""
    text = f"sinks = {{ s = {_toml(sink)} }}\nroutes = [{_toml(route)}]\n"
    wrong = "none"
    try:
        parse(text)
    except ServiceError as error:
        wrong = error.what
    assert len(wrong.splitlines()) == 1


def _toml(value: object) -> str:
    if isinstance(value, dict):
        pairs = (f"{_toml(str(k))} = {_toml(v)}" for k, v in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def test_quiet_hours_within_a_day() -> None:
    """A span that does not pass midnight ends the same day."""
    route = AlertRoute(("ops",), quiet="12:00-13:00 UTC")
    noon = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
    assert route.quiet_until(noon) == noon.replace(hour=13, minute=0)
    assert route.quiet_until(noon.replace(hour=13)) is None
