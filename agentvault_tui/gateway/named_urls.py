"""Find the URLs that a text names, as a program that fetches them may read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

MOST_URLS: Final = 512
"""One call may have fewer resources, so with so many it is refused."""
_SCHEME: Final = re.compile("https?:", re.IGNORECASE)
_CLOSING: Final = ".,;:!?)]}>*_'\"`"
"""Marks of a sentence or of Markdown that may follow a URL."""
_BLANKS: Final = re.compile(r"[^\S\x1c-\x1f\x85]+")
"""Characters that end a word in Python and in JavaScript. JavaScript's ``\\s`` has no
U+001C to U+001F and no U+0085, so that the host of ``https://a.test\\x1f@b.test`` is
``b.test`` to Gemini CLI."""


def find_urls(texts: Iterable[str]) -> list[str]:
    """Return the URLs of HTTP in *texts*, each in every reading.

    Gemini CLI takes a word with all marks after it for the URL; the model to which it
    hands the text may leave these out.

    Args:
        texts: for instance a prompt.

    Returns:
        up to `MOST_URLS` URLs as they are written, each once.
    """
    urls: dict[str, None] = {}
    for url in (url for text in texts for url in _urls_of(text)):
        urls[url] = None
        if len(urls) == MOST_URLS:
            break
    return list(urls)


def _urls_of(text: str) -> Iterator[str]:
    """Yield each URL; also one inside another one, such as after a comma."""
    for word in _BLANKS.split(text):
        for scheme in _SCHEME.finditer(word):
            url = word[scheme.start() :]
            yield from (url, url.rstrip(_CLOSING))
