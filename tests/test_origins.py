"""Origins have one spelling each, and every other spelling is another origin."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.errors import UsageError
from agentvault_tui.origins import ServerOrigin, read_origins


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://api.stripe.com", "https://api.stripe.com"),
        ("https://api.stripe.com:443", "https://api.stripe.com"),
        ("HTTPS://API.Stripe.com", "https://api.stripe.com"),
        ("https://api.stripe.com:8443", "https://api.stripe.com:8443"),
        ("https://api.stripe.com.", "https://api.stripe.com."),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("smtp://mail.test", "smtp://mail.test:587"),
        ("smtp://mail.test:465", "smtp://mail.test:465"),
        ("tcp://log.test", "tcp://log.test:601"),
        ("tls://log.test", "tls://log.test:6514"),
        ("unix:/run/guard.sock", "unix:/run/guard.sock"),
    ],
)
def test_an_origin_has_one_spelling(written: str, read: str) -> None:
    """Case and the scheme's own port do not matter, and nothing else is the same."""
    assert str(ServerOrigin.parse(written)) == read
    assert str(ServerOrigin.parse(read)) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "api.stripe.com",
        "https://",
        "https://api.stripe.com/",
        "https://api.stripe.com/v1",
        "https://api.stripe.com?",
        "https://api.stripe.com?a=1",
        "https://api.stripe.com#",
        "https://api.stripe.com#a",
        "https://me@api.stripe.com",
        "https://api.stripe.com@evil.test",
        "https://api.stripe.com\\@evil.test",
        "https://api.stripe.com:0",
        "https://api.stripe.com:",
        "https://api.stripe.com:65536",
        "https://api.stripe.com:443x",
        " https://api.stripe.com",
        "https://api.stripe.com ",
        "https://api.str\nipe.com",
        "https://api.stripe.com,https://evil.test",
        "https://ápi.stripe.com",
        "https://api%2estripe.com",
        "https://*.stripe.com",
        "https://[2001:db8:0::1]",
        "https://[::1",
        "ftp://api.stripe.com",
        "udp://log.test",
        "unix:relative",
        "unix:/run/a?b",
        "unix://host/run/a",
        "javascript:alert(1)",
    ],
)
def test_whatever_is_no_origin_is_refused(text: str) -> None:
    """A path, an account, a wildcard or an odd spelling is not read as something."""
    with pytest.raises(UsageError):
        ServerOrigin.parse(text)


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any text is an origin that reads as itself again, or is refused."""
    for one in (text, f"https://{text}", f"smtp://a.test:{text}", f"unix:/{text}"):
        try:
            origin = ServerOrigin.parse(one)
        except UsageError:
            continue
        assert ServerOrigin.parse(str(origin)) == origin


@given(st.sampled_from(["https", "http", "smtp"]), st.text(max_size=30))
def test_what_is_listed_is_what_is_reached(scheme: str, text: str) -> None:
    """A text that is listed names the host that a client would take from it."""
    url = f"{scheme}://{text}"
    try:
        origin = ServerOrigin.parse(url)
    except UsageError:
        return
    assert (origin.scheme, origin.host) == (scheme, urlsplit(url).hostname)


def test_a_list_is_ordered_and_has_each_origin_once() -> None:
    """The same origins are the same list, in whatever order and case they come."""
    given = ["https://b.test", "HTTPS://A.test:443", "https://a.test"]
    assert read_origins(given) == ("https://a.test", "https://b.test")


def test_none_is_an_empty_list_and_stands_alone() -> None:
    """`none` with an origin is neither taken for one nor for the other."""
    assert read_origins(["none"]) == read_origins([]) == ()
    for listed in (["none", "https://a.test"], ["none", "none"]):
        with pytest.raises(UsageError):
            read_origins(listed)
    with pytest.raises(UsageError):
        read_origins([f"https://h{number}.test" for number in range(65)])
