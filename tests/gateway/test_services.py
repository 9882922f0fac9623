"""Service files: what they may say, what is refused, and how they are reloaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.service_files import TRANSFERS

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway import Service, Services
from agentvault_tui.home import Home
from agentvault_tui.policy import Catalogue, shipped_catalogue
from agentvault_tui.policy.texts import shipped_scopes

Parse = Callable[[str], Service]
CLIENT = 'token_endpoint = "https://login.test/t?x=1"\nclient_id = "c"\nsecret = "s"\n'
ROUTE = '[[routes]]\nmethod = "GET"\npath = "/a/{x}"\nscope = "read:files"\n'


def test_every_key_of_the_contract_is_read(parse: Parse) -> None:
    """A file with all that the contract shows becomes a service that says it."""
    service = parse(
        f"""
origin = "https://api.stripe.com"
unmatched = "deny"
allow_private = false
ca_file = ""
[credential]
kind = "bearer"
secret = "stripe-live"
{TRANSFERS}recipients = "count:body:/to"
[[routes]]
method = "*"
path = "/v1/files/{{path*}}"
scope = "read:files"
parameters = {{ tag = "header:X-Tag", n = "query:n", p = "path:path", one = 1 }}
"""
    )
    assert str(service.origin) == "https://api.stripe.com"
    assert (service.origin.port, service.unmatched) == (443, "deny")
    assert (service.credential.kind, service.credential.secret) == (
        "bearer",
        "stripe-live",
    )
    pay, files = service.routes
    assert pay.names("body")
    assert {n: str(s[0]) for n, s in pay.parameters.items()} == {
        "amount": "body:/amount",
        "currency": "body:/currency",
        "recipients": "count:body:/to",
    }
    assert not files.names("body")
    assert [str(s[0]) for s in files.parameters.values()] == [
        "header:x-tag",
        "query:n",
        "path:path",
        "1",
    ]


@pytest.mark.parametrize(
    "credential",
    [
        'kind = "none"',
        'kind = "bearer"\nsecret = "s"',
        'kind = "basic"\nusername = "u"\nsecret = "s"',
        'kind = "header"\nname = "X-Api-Key"\nprefix = "Token "\nsecret = "s"',
        'kind = "query"\nname = "key"\nsecret = "s"',
        'kind = "client_credentials"\nscope = "a b"\n' + CLIENT,
        'kind = "refresh_token"\nclient_secret = "d"\n' + CLIENT,
        'kind = "connection"\nconnection = "google-oauth2"',
    ],
)
def test_every_kind_of_credential_is_taken(parse: Parse, credential: str) -> None:
    """Each kind takes its own keys."""
    kind = credential.split('"')[1]
    assert parse(f"[credential]\n{credential}").credential.kind == kind


@pytest.mark.parametrize(
    ("credential", "said"),
    [
        ('kind = "bearer"', "needs secret"),
        ('kind = "bearer"\nsecret = "s"\nusername = "u"', "has no username"),
        ('kind = "none"\nsecret = "s"', "has no secret"),
        ('kind = "basic"\nsecret = "s"\nusername = "a:b"', "colon"),
        ('kind = "header"\nsecret = "s"\nname = "Host"', "no header"),
        ('kind = "header"\nsecret = "s"\nname = "a b"', "no header"),
        ('kind = "header"\nsecret = "s"\nname = "a"\nprefix = "x\\r\\n"', "ASCII"),
        ('kind = "bearer"\nsecret = "sk_live ABC"', "no name of a sealed secret"),
        ('kind = "connection"\nconnection = "a b"', "not the name"),
        ('kind = "connection"', "needs connection"),
        (
            'kind = "client_credentials"\n' + CLIENT.replace("https", "http"),
            "not encrypted",
        ),
        ('kind = "refresh_token"\n' + CLIENT.replace("//", "//a@"), "account"),
        ('kind = "baerer"', "kind"),
        ('kind = "bearer"\nsecrt = "s"', "did you mean secret"),
    ],
)
def test_a_credential_that_cannot_work_is_refused(
    parse: Parse, credential: str, said: str
) -> None:
    """Missing, foreign and unsendable values are named."""
    with pytest.raises(ServiceError) as refused:
        parse(f"[credential]\n{credential}")
    assert said in refused.value.diagnosis()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("origin = ", "not TOML"),
        ('origin = "https://a.test"\norigin = "https://b.test"', "not TOML"),
        ('orign = "https://a.test"', "did you mean origin"),
        (
            'origin = "https://a.test"\nallow_privat = true',
            "did you mean allow_private",
        ),
        ("origin = 3", "origin: Expected `str`"),
        ("unmatched = 'deny'\n#origin =", "missing required field `origin`"),
        ('origin = "https://a.test/v1"', "more than an origin"),
        ('origin = "https://a.test/"', "more than an origin"),
        ('origin = "https://a.test?x"', "more than an origin"),
        ('origin = "http://a.test"', "not encrypted"),
        ('origin = "ftp://a.test"', "no URL of https"),
        ('origin = "a.test"', "no URL of https"),
        ('origin = "https://u:p@a.test"', "account"),
        ('origin = "https://A.test"', "capitals"),
        ('origin = "https://a.test:0"', "host or port"),
        ('origin = "https://a.test:99999"', "no URL"),
        ('origin = "https://a.test:"', "host or port"),
        ('origin = "https://127.1"', "host or port"),
        ('origin = "https://0x7f.0.0.1"', "host or port"),
        ('origin = "https://2130706433"', "host or port"),
        ('origin = "https://[::0001]"', "host or port"),
        ('origin = "https://[::ffff:127.0.0.1%25lo]"', "host or port"),
        ('origin = "https://[::ffff:7f00:1]"', "host or port"),
        ('origin = "https://[::ffff:127.0.0.1]"', "host or port"),
        ('origin = "https://bücher.test"', "host or port"),
        ('unmatched = "read:calender"', "did you mean read:calendar"),
        ('ca_file = "nowhere.pem"', "does not exist"),
        (ROUTE.replace("read:files", "read:flies"), "did you mean read:files"),
        (ROUTE.replace("method", "methd"), "did you mean method"),
        (ROUTE.replace("GET", "get"), "the method is not one"),
        (ROUTE.replace("/a/{x}", "a/{x}"), "begin with a slash"),
        (ROUTE.replace("/a/{x}", "/a//{x}"), "empty segment"),
        (ROUTE.replace("/a/{x}", "/a/../{x}"), ". or .. segment"),
        (ROUTE.replace("/a/{x}", "/a%2fb"), "escapes"),
        (ROUTE.replace("/a/{x}", "/a?b=1"), "query"),
        (ROUTE.replace("/a/{x}", "/a/{x}.json"), "more than a capture"),
        (ROUTE.replace("/a/{x}", "/a/{x*}/b"), "not at the end"),
        (ROUTE.replace("/a/{x}", "/{x}/{x}"), "twice"),
        (ROUTE + 'resource = "fs:{y}"', "the path has x"),
        (ROUTE + 'resource = ""', "empty"),
        (ROUTE + 'parameters = { a = "body:a" }', ": nowhere"),
        (ROUTE + 'parameters = { a = "body:/~2" }', ": nowhere"),
        (ROUTE + 'parameters = { a = "path:y" }', ": nowhere"),
        (ROUTE + 'parameters = { a = "count:path:x" }', ": nowhere"),
        (ROUTE + 'parameters = { a = "cookie:x" }', ": nowhere"),
        (ROUTE + 'parameters = { a = ["body:/a", "body:/b"] }', "several places"),
        (ROUTE + "parameters = { a = [] }", "several places"),
        (ROUTE + "parameters = { a = -1 }", "negative"),
        (ROUTE + ROUTE, "route 2 (GET /a/{x}) can never match: route 1"),
        (ROUTE + ROUTE.replace("/a/{x}", "/a/b"), "can never match"),
        (
            ROUTE.replace("GET", "*").replace("{x}", "{x*}")
            + ROUTE.replace("/a/{x}", "/a/b/c/{y*}"),
            "can never match",
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    parse: Parse, text: str, said: str
) -> None:
    """A broken, ambiguous or impossible file is refused, and says what is wrong."""
    with pytest.raises(ServiceError) as refused:
        parse(text)
    assert said in refused.value.diagnosis()


def test_plain_http_and_private_addresses_are_asked_for(parse: Parse) -> None:
    """An unencrypted origin is taken where the file says so; ports are kept."""
    service = parse('origin = "http://[::1]:8080"\nallow_http = true')
    assert str(service.origin) == "http://[::1]:8080"
    assert not service.allow_private


def test_narrow_routes_before_wide_ones_are_no_mistake(parse: Parse) -> None:
    """Routes that overlap without one covering the next are taken."""
    wide = ROUTE.replace("GET", "*").replace("/a/{x}", "/{all*}")
    narrow = ROUTE.replace("/a/{x}", "/a/b")
    slash = ROUTE.replace("/a/{x}", "/a/{x}/")
    assert len(parse(narrow + ROUTE + slash + wide).routes) == 4


def write(home: Home, name: str, text: str) -> Path:
    path = home.config / "services" / name
    path.write_text(text)
    return path


def test_a_broken_file_keeps_the_last_good_one_in_force(
    home: Home, services: Services
) -> None:
    """A file that breaks changes nothing but the warnings, until it is mended."""
    path = write(home, "api.toml", 'origin = "https://one.test"')
    assert services.changed()
    services.reload()
    [(file, before)] = services.digests()
    assert file == "services/api.toml"
    assert not services.changed()
    path.write_text('origin = "https://two.test/path"')
    assert services.changed()
    services.reload()
    assert services.digests() == [(file, before)]
    assert [str(one.origin) for one in services] == ["https://one.test"]
    assert not services.changed()
    [warning] = services.warnings
    assert warning.startswith(
        "services/api.toml cannot be put in force, the one before"
    )
    assert "more than an origin" in warning
    path.write_text('origin = "https://two.test"')
    services.reload()
    assert services.digests() != [(file, before)]
    assert services.warnings == []
    assert [str(one.origin) for one in services] == ["https://two.test"]


def test_a_file_that_is_gone_is_in_force_no_more(
    home: Home, services: Services
) -> None:
    """Taking a file away takes its service away."""
    path = write(home, "api.toml", 'origin = "https://one.test"')
    services.reload()
    path.unlink()
    assert services.changed()
    services.reload()
    assert services.get("api") is None


def test_other_files_of_the_folder_do_not_matter(
    home: Home, services: Services
) -> None:
    """Drafts of editors are passed over; a bad name, a FIFO, a huge file are told."""
    write(home, ".api.toml", "rubbish")
    write(home, "api.toml~", "rubbish")
    write(home, "Api.toml", 'origin = "https://one.test"')
    write(home, "big.toml", "#" * 300_000)
    os.mkfifo(home.config / "services" / "pipe.toml")
    (home.config / "services" / "folder.toml").mkdir()
    write(home, "good.toml", 'origin = "https://one.test"')
    services.reload()
    assert [one.name for one in services] == ["good"]
    assert sorted(services.problems) == [
        "Api.toml",
        "big.toml",
        "folder.toml",
        "pipe.toml",
    ]


def test_a_catalogue_without_its_scope_leaves_a_service_with_a_warning(
    home: Home,
) -> None:
    """When the catalogue changes, files are checked against the new one."""
    texts = [shipped_scopes(), shipped_scopes().replace("read:files", "read:documents")]
    catalogues = [Catalogue.parse(text, "scopes.toml") for text in texts]
    services = Services(home, lambda: catalogues[0])
    write(home, "api.toml", 'origin = "https://one.test"\n' + ROUTE)
    services.reload()
    assert services.warnings == []
    catalogues.pop(0)
    services.parse_again()
    assert services.changed()
    services.reload()
    assert "unknown scope 'read:files'" in services.warnings[0]
    assert services.get("api") is not None


def test_without_a_folder_there_are_no_services(tmp_path: Path) -> None:
    """A home that has no services folder has no services, and no problem."""
    services = Services(Home(tmp_path, tmp_path), shipped_catalogue)
    services.reload()
    assert list(services) == []
    assert services.warnings == []


def test_the_work_of_reading_routes_grows_with_their_number(parse: Parse) -> None:
    """Four times the routes are read with at most six times the calls."""

    def count_calls(routes: int) -> int:
        text = "".join(ROUTE.replace("/a/", f"/a{n}/") for n in range(routes))
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            parse(text)
        finally:
            sys.setprofile(None)
        return calls

    assert count_calls(800) < 6 * count_calls(200)
