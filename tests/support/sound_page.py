"""What every page of the tenant's has to be: well-formed, plain, closed to others."""

from __future__ import annotations

from html.parser import HTMLParser

import httpx

VOID = {"meta", "link", "input", "br"}
HOSTILE = (
    '"><script>alert(1)</script>',
    "</bdi></dd><main data-step='approved'>",
    "{{ 7*7 }}{% raw %}",
    "\x1b]8;;https://evil.test\x07go\x1b[0m\x9b31m",
    "\u202egnp.exe\u200b\u2066x\u3164",
    "line one\nfingerprint: AAAA\r\n",
    "&lt;b&gt; &amp; ' \"",
    "́" * 50,
)
PLACES = ("/activate", "/u/", "/bc-verify?")


class StrictReader(HTMLParser):
    """Insists that every element is closed, in order, and every attribute is one."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag not in VOID
        assert self.stack.pop() == tag


def strict(html: str) -> StrictReader:
    reader = StrictReader()
    reader.feed(html)
    reader.close()
    assert reader.stack == []
    return reader


def sound(answer: httpx.Response) -> None:
    """Hold a page to its headers and its markup."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    _no_surprises(strict(answer.text))


def _no_surprises(reader: StrictReader) -> None:
    labels = {held.get("for") for tag, held in reader.tags if tag == "label"}
    for tag, held in reader.tags:
        assert tag not in {"script", "style", "iframe", "img", "object", "base"}
        assert not [name for name in held if name == "style" or name.startswith("on")]
        for name in ("href", "src", "action"):
            place = held.get(name) or PLACES[0]
            assert place == "/" or place.startswith(PLACES)  # the inbox
        if tag == "input" and held["type"] in {"text", "password"}:
            assert held["id"] in labels
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("h1") == tags.count("main") == tags.count("title") == 1
    assert ("html", {"lang": "en"}) in reader.tags
