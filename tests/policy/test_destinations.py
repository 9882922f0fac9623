"""A destination is read from a whole address or URL, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from agentvault_tui.policy.destinations import (
    MOST,
    is_destination,
    read_domains,
    read_hosts,
)


@pytest.mark.parametrize(
    ("values", "domains"),
    [
        (["a@acme.test"], ("acme.test",)),
        (["A.b+c@ACME.test", "d@mail.acme.test"], ("acme.test", "mail.acme.test")),
        ([["a@acme.test", "b@acme.test"]], ("acme.test",)),
        (["Ada Lovelace <ada@acme.test>"], ("acme.test",)),
        (["<a@xn--bcher-kva.test>"], ("xn--bcher-kva.test",)),
    ],
)
def test_the_domains_of_addresses_are_read(
    values: list[Any], domains: tuple[str, ...]
) -> None:
    """In lower case, each once, sorted."""
    assert read_domains(values) == domains


@pytest.mark.parametrize(
    "value",
    [
        *("", "acme.test", "a@", "@acme.test", "a@acme.test.", "a@.test", "a@a..test"),
        *("a@acme.test,b@evil.test", "a@acme.test b@evil.test", "a@b@acme.test"),
        *("a@evil.test\n@acme.test", "a@acme.test\n", "a@acme.test\x00"),
        *("evil.test!a@acme.test", "a%evil.test@acme.test", '"a@evil.test"@acme.test'),
        *("a(@evil.test)@acme.test", "@evil.test:a@acme.test", "a@[192.0.2.1]"),
        *("a@b\u00fccher.test", "a@acme\uff0etest", "\u0430@acme.test", "a@acme.test>"),
        *(
            "x@evil.test <a@acme.test>",
            "x, y <a@acme.test>",
            "=?utf-8?q?x?= <a@b.test>",
        ),
        *("<a@acme.test> <b@evil.test>", "Team: a@acme.test;", "a@1.2.3", "a@0x7f.1"),
        *(None, 3, True, {"email": "a@acme.test"}, ["a@acme.test", None], [[]]),
        f"a@{'x' * 64}.test",
        f"{'a' * 65}@acme.test",
    ],
)
def test_no_other_text_is_an_address(value: Any) -> None:
    """Mail programs differ in whom such a text reaches, so that it reaches anyone."""
    assert read_domains([value]) is None
    assert read_domains(["a@acme.test", value]) is None


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("https://acme.test", "acme.test"),
        ("HTTPS://Hooks.Acme.test:8443/in?x=1#f", "hooks.acme.test"),
        ("http://192.0.2.1/", "192.0.2.1"),
        ("wss://acme.test/a@b", "acme.test"),
    ],
)
def test_the_host_of_a_url_is_read(value: str, host: str) -> None:
    """In lower case, without the port."""
    assert read_hosts([value]) == (host,)


@pytest.mark.parametrize(
    "value",
    [
        *("", "acme.test", "//acme.test", "https:acme.test", "https:/acme.test/"),
        *("https://acme.test@evil.test/", "https://acme.test:80@evil.test/"),
        *("https://evil.test\\@acme.test/", "https://acme.test\\.evil.test/"),
        *(
            "https://acme.test/\\..",
            "https://acme.test?@evil.test/",
            "https://a.test#@b",
        ),
        *(
            "https://acme.test\t.evil.test/",
            "https://acme.test /",
            " https://acme.test",
        ),
        *(
            "https://acme.test/\n",
            "https://acme.test%2eevil.test/",
            "https://acme.test./",
        ),
        *("https://2130706433/", "https://0x7f.1/", "https://127.1/", "https://[::1]/"),
        *(
            "https://acme\u3002test/",
            "https://\u0430cme.test/",
            "javascript://acme.test/",
        ),
        *("file://acme.test/", "https://acme.test:x/", "https://acme.test:80:80/"),
        *(None, 3, {"url": "https://acme.test/"}),
    ],
)
def test_no_other_text_is_a_url(value: Any) -> None:
    """Parsers differ in the host of such a text."""
    assert read_hosts([value]) is None
    assert read_hosts(["https://acme.test/", value]) is None


def test_nothing_has_no_destination() -> None:
    """An empty list reaches no host."""
    assert read_domains([]) is read_hosts([[]]) is None


def test_a_destination_has_one_spelling() -> None:
    """No capitals, final dot, port, or address in another form."""
    good = ("acme.test", "localhost", "192.0.2.1", "_dmarc.acme.test")
    bad = ("Acme.test", "acme.test.", "acme.test:80", "192.0.2.01", "0x1.test.1", "")
    assert all(map(is_destination, good))
    assert not any(map(is_destination, bad))


def test_more_addresses_than_are_read_in_a_turn_name_no_destinations() -> None:
    """Then a rule about destinations has a person decide."""
    few = [f"a@b{number}.test" for number in range(MOST)]
    assert len(read_domains([few]) or ()) == MOST
    assert read_domains([[*few, "a@b.test"]]) is None
    assert read_domains([few, "a@b.test"]) is None
