"""Where a text leads elsewhere: addresses in every disguise a person still can read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# The text is an attacker's: every pattern begins only where a word does, or at a sign,
# and what repeats without a bound is possessive, so that the cost is the length.
_REST: Final = r"(?::\d{1,5}+)?(?:[/?#\\]\S*+)?"
_NAMES: Final = (
    "com|net|org|edu|gov|io|co|dev|app|test|example|info|biz|xyz|top|site|online|link"
    "|click|live|page|cloud|shop|club|icu|zip|mov|help|support|login|web|tech|store"
    "|ru|cn|de|uk|eu|fr|nl|ch|es|pl|cz|ly|gl|gg|sh|ai|cc|tv|ws|su|tk|ml|ga|cf|ovh"
)
"""Ends of names that are no words of a sentence."""
_DOTTED: Final = re.compile(
    rf"(?<![\w-])(?<![\w-][.·。])[\w-]++(?:[.·。][\w-]++)++{_REST}"
)
_LAST: Final = re.compile(
    r"[.](?:xn--[\w-]+|[^\W\d_]{2,})|[·。][a-z]{2,24}(?![^\W_])", re.IGNORECASE
)
_SPACED: Final = (
    r"(?:\s{1,3}\.\s{0,3}"
    r"|\s{0,2}[\[({<]\s?(?:\.|dot|d0t|punkt|point)\s?[\])}>]\s{0,2})"
)
"""A dot as nobody sets it who does not hide something."""
_WORDY: Final = r"(?:\.\s{1,3}|,|\s{1,2}(?:dot|d0t|punkt|point)\s{1,2})"
"""A dot as sentences have it, or spelled."""
_SIX: Final = r"(?=[0-9a-f:]{0,36}(?:::|:[0-9a-f]{1,4}:[0-9a-f]{1,4}:))[0-9a-f:]{3,39}"
_FROM_A_DOT: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<=[\w-]){_SPACED}[^\W\d_]{{2,24}}+{_REST}",
        rf"(?<=[\w-]){_WORDY}(?:{_NAMES})(?![^\W_]){_REST}",
        r"(?<=[\w\]]):\d{2,5}/\S*+",
    )
)
_SCHEME: Final = re.compile(r":\s?[/\\]\s?[/\\]\s?\S*+")
_WHOLE: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?:mailto|tel|sms|data|javascript|skype|tg):\S++",
        r"\bwww\d?\s?[.·]\s?\S++",
        rf"\blocalhost{_REST}",
        # Numbers as addresses.
        r"(?<![\d.])\d{1,3}(?:\s?[.\[\]()]{1,3}\s?\d{1,3}){3}(?!\d)" + _REST,
        rf"\[?(?<![\w:]){_SIX}(?![\w:])\]?{_REST}",
        # Somebody to write to.
        r"(?<![\w.+-])[\w.+-]++\s?(?:@|[\[({]\s?at\s?[\])}])\s?[\w.-]{2,253}+",
        r"(?<!\w)@\s?\w{3,64}+",
    )
)
_SCHEME_LENGTH: Final = 31
_NAME_LENGTH: Final = 253


def link_spans(read: str) -> Iterator[tuple[int, int]]:
    """Yield where *read*, a `lookalikes.skeleton`, names a place to go to."""
    for match in _DOTTED.finditer(read):
        if _LAST.search(match[0]):
            yield match.span()
    for pattern in _FROM_A_DOT:
        for match in pattern.finditer(read):
            yield _back(read, match.start(), _NAME_LENGTH, "-_.·[]"), match.end()
    for match in _SCHEME.finditer(read):
        yield _back(read, match.start(), _SCHEME_LENGTH, "-_+.*[]()"), match.end()
    for pattern in _WHOLE:
        for match in pattern.finditer(read):
            yield match.span()


def _back(read: str, start: int, most: int, also: str) -> int:
    """Return where the name begins that ends at *start*, over one blank if need be."""
    index = start - 1 if read[start - 1 : start] == " " else start
    while index > 0 and start - index < most:
        if not (read[index - 1].isalnum() or read[index - 1] in also):
            break
        index -= 1
    return index
