"""URLs in texts, in each reading of a program that fetches them."""

from __future__ import annotations

import pytest

from agentvault_tui.gateway.named_urls import MOST_URLS, find_urls
from agentvault_tui.policy.resources import canonical


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("no url, a.test, ftp://a.test", []),
        (
            "see https://a.test/x and http://b.test",
            ["https://a.test/x", "http://b.test"],
        ),
        ("[x](https://a.test/x).", ["https://a.test/x).", "https://a.test/x"]),
        ("\ufeffHttps:a.test\u3000y", ["Https:a.test"]),
        (
            "a=http://a.test;https://b.test",
            ["http://a.test;https://b.test", "https://b.test"],
        ),
    ],
)
def test_each_url_is_found_in_each_reading(text: str, urls: list[str]) -> None:
    """With the marks that follow it, without them, and inside another one."""
    assert find_urls([text, text]) == urls


@pytest.mark.parametrize("mark", [*"\x1c\x1d\x1e\x1f\x85\ufeff\0"])
def test_a_url_goes_on_behind_a_mark_that_is_no_blank_to_javascript(mark: str) -> None:
    """Gemini CLI fetches from the host behind the at sign; the URL is unclear."""
    (url,) = find_urls([f"see https://a.test{mark}@b.test/ now"])
    assert url == f"https://a.test{mark}@b.test/"
    assert canonical(url) is None


def test_no_text_has_more_urls_than_are_decided() -> None:
    """An agent chooses how many it writes."""
    assert len(find_urls(["http:x" * 5_000])) == MOST_URLS
