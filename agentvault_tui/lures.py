"""Masks user codes, links and phone numbers in an agent's own words.

A rogue agent starts a device flow of its own and writes "enter WXYZ-BCDF at …" as its
reason (RFC 8628 section 5.4, RFC 10027): the operator must not be able to read the
lure, let alone follow it. Too much masking costs a look at the trusted facts, which say
more; too little costs an account.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from agentvault_tui.lookalikes import skeleton
from agentvault_tui.text import Shown


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MASK: Final = "▒"
_READABLE: Final = re.compile(r"[\s–-]")
"""Stays readable inside a mask: the shape shows the kind of value."""
_TOKEN: Final = re.compile(r"[^\W_]{1,64}")
_GAP: Final = 3
"""Characters between two parts of one code, at most."""
_LONGEST: Final = 24
_MOST_PARTS: Final = 16
_CONSONANTS: Final = frozenset("BCDFGHJKLMNPQRSTVWXZ")
"""The base-20 alphabet of user codes (RFC 8628 section 6.1)."""
_FILLERS: Final = _words(
    "and comma dash dot followed by hyphen minus plus point slash space then"
)
_SPELLED: Final = _words(
    "alpha alfa bravo charlie delta echo foxtrot golf hotel india juliet juliett kilo"
    " lima mike november oscar papa quebec romeo sierra tango uniform victor whiskey"
    " whisky xray yankee zulu zero oh one two three four five six seven eight nine"
    " niner null eins zwei zwo drei vier fuenf funf sechs sieben acht neun"
)
_BEFORE_A_CODE: Final = _words(
    "code codes pin otp passcode password passwort kennwort tan token key"
)
_BEFORE_A_NUMBER: Final = _words(
    "call dial phone ring sms tel telephone text whatsapp signal"
)
_BETWEEN: Final = frozenset({"is", "number", "at", "on", "the", "us"})
_CURRENCIES: Final = _words(
    "AUD BRL CAD CHF CNY CZK DKK EUR GBP HUF INR JPY MXN NOK NZD PLN SEK SGD USD ZAR"
)
_PLAIN_CAPITALS: Final = frozenset({"HTML", "HTTP", "HTTPS", "GMBH", "XLSX"})
_SIGN: Final = rf"(?:[$€£¥]|\b(?:{'|'.join(sorted(_CURRENCIES))})\b)"
_SUM: Final = r"(?:\d{1,3}(?:[,.']\d{3}){0,2}(?:[.,]\d{2})?|\d{1,6}[.,]\d{2}|\d{1,5})"
_PLAIN_NUMBER: Final = re.compile(
    r"(?<![\w-])(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?![\w-])"
    rf"|{_SIGN}\s?{_SUM}(?![\w])|(?<![\w.,]){_SUM}\s?{_SIGN}"
)
"""A date or an amount of money is no code."""


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
"""A dot that only an author with something to hide sets."""
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


@dataclass(frozen=True, slots=True)
class Masked:
    """An agent's words without their lures, and how many there were."""

    text: Shown
    codes: int
    links: int
    numbers: int
    """Phone numbers."""

    @property
    def warning(self) -> str:
        """The masked kinds, in words; empty without any."""
        counts = (
            (self.codes, "code"),
            (self.links, "link"),
            (self.numbers, "phone number"),
        )
        counted = [f"{n} {word}{'s' * (n != 1)}" for n, word in counts if n]
        *most, last = counted or [""]
        listed = f"{', '.join(most)} and {last}" if most else last
        return f"{listed} masked" if counted else ""


_Span = tuple[int, int]


class _Token(NamedTuple):
    text: str
    start: int
    end: int


def mask_lures(shown: Shown) -> Masked:
    """Blank out whatever looks like a user code, a link or a phone number."""
    read, places = skeleton(shown)
    spans = list(_code_spans(read))
    links = _merged(_link_spans(read))
    numbers = _merged((start, end) for start, end, kind in spans if kind == "number")
    codes = _merged((start, end) for start, end, kind in spans if kind == "code")
    characters = list(shown)
    for start, end in (*links, *codes, *numbers):
        # Up to the next: marks on the last character belong to it.
        stop = places[end] if end < len(places) else len(shown)
        for index in range(places[start], stop):
            if not _READABLE.match(characters[index]):
                characters[index] = _MASK
    # Each is masked; what is in two of them counts once.
    numbers = _outside(numbers, links)
    codes = _outside(codes, [*links, *numbers])
    return Masked(Shown("".join(characters)), len(codes), len(links), len(numbers))


def _outside(spans: list[_Span], others: list[_Span]) -> list[_Span]:
    return [
        (start, end)
        for start, end in spans
        if not any(start < stop and begin < end for begin, stop in others)
    ]


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    """Join spans that overlap."""
    merged: list[_Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _code_spans(read: str) -> Iterator[tuple[int, int, str]]:
    """Yield where parts that stand close together make up a code or a number."""
    plain = [match.span() for match in _PLAIN_NUMBER.finditer(read)]
    text = list(read)
    for start, end in plain:
        text[start:end] = " " * (end - start)
    tokens = [_Token(m[0], m.start(), m.end()) for m in _TOKEN.finditer("".join(text))]
    number = 0
    while number < len(tokens):
        window = _run(tokens, number)
        named = _named(tokens, number)
        number += 1
        while window:
            if kind := _kind(read, window, named):
                yield window[0].start, window[-1].end, kind
                # The last part may begin another code.
                number = max(number, tokens.index(window[-1], number - 1))
                break
            window.pop()


def _run(tokens: list[_Token], number: int) -> list[_Token]:
    """Return the parts of codes that stand together from a token on."""
    window: list[_Token] = []
    total, end = 0, tokens[number].start
    for part in tokens[number : number + 2 * _MOST_PARTS]:
        filler = part.text.lower() in _FILLERS and window
        if part.start - end > _GAP or not (filler or _codey(part.text)):
            break
        end = part.end
        if filler:
            continue
        total += 1 if part.text.lower() in _SPELLED else len(part.text)
        if window and (total > _LONGEST or len(window) == _MOST_PARTS):
            break
        window.append(part)
    return window


def _codey(text: str) -> bool:
    """Check whether a word can be a part of a code."""
    return (
        len(text) == 1
        or text.isupper()
        or any(character.isdigit() for character in text)
        or _is_consonants(text)
        or text.lower() in _SPELLED
    )


def _named(tokens: list[_Token], number: int) -> str:
    """Return the kind of value that the words just before announce, if any."""
    for before in reversed(tokens[max(number - 3, 0) : number]):
        word = before.text.lower()
        if word in _BEFORE_A_CODE:
            return "code"
        if word in _BEFORE_A_NUMBER:
            return "number"
        if word not in _BETWEEN:
            break
    return ""


def _kind(read: str, window: list[_Token], named: str) -> str:
    """Say whether a run of words is a code, a phone number, or neither."""
    words = [token.text for token in window]
    whole = "".join(words)
    lengths = [len(word) for word in words]
    if whole.isdigit():
        return _digits(read, window, len(whole), named)
    if all(word.lower() in _SPELLED or len(word) == 1 for word in words):
        return "code" if len(words) >= 4 else ""
    if named == "code" and len(words) == 1 and len(whole) >= 3:
        return "code" if whole.isupper() or any(map(str.isdigit, whole)) else ""
    return "code" if _looks_random(words, whole, lengths) else ""


def _looks_random(words: list[str], whole: str, lengths: list[int]) -> bool:
    total = len(whole)
    if _is_consonants(whole):
        if len(words) == 1 and words[0] in _PLAIN_CAPITALS:
            return False
        if whole.isupper():
            return total >= 6 or (len(words) == 1 and total >= 4)
        return total >= 8
    mixed = any(map(str.isdigit, whole)) and any(map(str.isalpha, whole))
    if not mixed and not whole.isupper():
        return False
    if max(lengths) <= 2:
        return total >= 6
    if len(words) == 1:
        return total >= 8 if mixed else total in {8, 9}
    regular = len(set(lengths)) == 1 and lengths[0] in {3, 4}
    return total >= 8 and (regular or (mixed and max(lengths) <= 5))


def _digits(read: str, window: list[_Token], total: int, named: str) -> str:
    """Return the kind of digits in groups; amounts of money and dates are neither."""
    start = window[0].start
    before = read[max(start - 4, 0) : start]
    if named == "number" and total >= 3:
        return "number"
    if named == "code" and total >= 3:
        return "code"
    alone = all(len(token.text) == 1 for token in window)
    if total < (4 if alone else 6):
        return ""
    if total >= 7 and (before[-1:] in {"+", "("} or read.startswith("00", start)):
        return "number"
    return "number" if total >= 9 and len(window) > 2 and not alone else "code"


def _is_consonants(text: str) -> bool:
    return all(character in _CONSONANTS for character in text.upper())


def _link_spans(read: str) -> Iterator[tuple[int, int]]:
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
