"""An agent's own words: what could lure a person cannot be read, the rest can."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.lookalikes import skeleton
from agentvault_tui.lures import mask_lures
from agentvault_tui.text import visible

BASE20 = "BCDFGHJKLMNPQRSTVWXZ"
CYRILLIC = str.maketrans("ABCEHKMPTX", "АВСЕНКМРТХ")
FULLWIDTH = {n: n + 0xFEE0 for n in range(0x21, 0x7F)}
BOLD = {ord("A") + n: 0x1D400 + n for n in range(26)}
SQUARED = {ord("A") + n: 0x1F170 + n for n in range(26)}
DRESS = {
    "plain": str,
    "small": str.lower,
    "cyrillic": lambda text: text.translate(CYRILLIC),
    "fullwidth": lambda text: text.translate(FULLWIDTH),
    "bold": lambda text: text.translate(BOLD),
    "squared": lambda text: text.translate(SQUARED),
    "marked": lambda text: "".join(f"{each}\u0332" for each in text),
    "hidden": "\u200b".join,
    "soft": "\u00ad".join,
}
BETWEEN = [" ", "-", "–", ".", " - ", "/", ":", "_", "\n", " dash ", " then ", " · "]
SENTENCES = [
    "Please pay the invoice {} before Friday.",
    "{}",
    "The supplier asks for it:{}",
    "Open the page and enter {}, then confirm.",
    "({})",
]


def readable(shown: str) -> str:
    """What a person could still type off: letters and digits, whatever their dress."""
    plain = unicodedata.normalize("NFKD", skeleton(shown)[0]).upper()
    return "".join(each for each in plain if each.isalnum())


CODES = st.one_of(
    st.text(BASE20, min_size=8, max_size=8),
    st.text("0123456789", min_size=9, max_size=9),
    st.text("0123456789", min_size=6, max_size=6),
)


@pytest.mark.slow
@given(
    CODES,
    st.sampled_from(sorted(DRESS)),
    st.sampled_from(BETWEEN),
    st.sampled_from([1, 2, 3, 4, 8]),
    st.sampled_from(SENTENCES),
)
def test_a_code_is_masked_in_any_spelling_and_grouping(
    code: str, dress: str, between: str, group: int, sentence: str
) -> None:
    """Whatever letters it is drawn with and however it is spaced, it is masked."""
    parts = [code[n : n + group] for n in range(0, len(code), group)]
    drawn = between.join(DRESS[dress](part) for part in parts)
    masked = mask_lures(visible(sentence.format(drawn), 2000))
    assert masked.codes + masked.numbers + masked.links >= 1
    assert code not in readable(masked.text)
    for start in range(len(code) - 3):
        assert code[start : start + 4] not in readable(masked.text), masked.text


HOSTS = st.builds(
    lambda name, end: f"{name}.{end}",
    st.from_regex(r"\A[b-z]{3}qj[a-z]{3}\Z"),
    st.sampled_from(["com", "net", "dev", "example", "ru", "io"]),
)
DOTS = [".", "[.]", "(.)", " . ", ". ", " dot ", "[dot]", "。", "．", "․", "·"]
SCHEMES = ["", "https://", "hxxp://", "h**ps://", "http : // ", "www.", "HTTPS:\\\\"]
PATHS = ["", "/", "/activate", ":8080/x?y=1", "?code=1"]


@pytest.mark.slow
@given(
    HOSTS,
    st.sampled_from(DOTS),
    st.sampled_from(SCHEMES),
    st.sampled_from(PATHS),
    st.tuples(
        st.sampled_from(["plain", "fullwidth", "marked", "hidden"]),
        st.sampled_from(SENTENCES),
    ),
)
def test_a_host_is_masked_in_any_spelling(
    host: str, dot: str, scheme: str, path: str, worn: tuple[str, str]
) -> None:
    """Bare, with a scheme or a false one, dotted in any way: the name is masked."""
    name, _, end = host.partition(".")
    dress, sentence = worn
    drawn = f"{scheme}{DRESS[dress](name)}{dot}{end}{path}"
    masked = mask_lures(visible(sentence.format(drawn), 2000))
    assert masked.links >= 1
    assert name.upper() not in readable(masked.text)


@pytest.mark.parametrize(
    ("lure", "said"),
    [
        ("enter WXYZ-BCDF now", "1 code masked"),
        ("enter wxzz-bcdf now", "1 code masked"),
        ("K D R T", "1 code masked"),
        ("k,d,r,t", "1 code masked"),
        ("KDRT", "1 code masked"),
        ("first KDRT and after that WZNB", "2 codes masked"),
        ("A2KJH8XQZ", "1 code masked"),
        ("a2kj-h8xq", "1 code masked"),
        ("the code is 4821", "1 code masked"),
        ("PIN: 4821", "1 code masked"),
        ("123,456", "1 code masked"),
        ("1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣", "1 code masked"),
        ("١٢٣٤٥٦", "1 code masked"),
        ("🇰🇩🇷🇹 🇼🇿🇳🇧", "1 code masked"),
        ("kilo delta romeo tango whiskey zulu november bravo", "1 code masked"),
        ("one two three, four five six", "1 code masked"),
        ("call +1 (555) 123-4567", "1 phone number masked"),
        ("0049 30 1234567", "1 phone number masked"),
        ("text 4357", "1 phone number masked"),
        ("see https://evil.test/activate?x=1", "1 link masked"),
        ("еvil.рф or xn--80ak6aa92e.com", "2 links masked"),
        ("http://3232235777/", "1 link masked"),
        ("10.0.0.1:8080 and [::1]:80", "2 links masked"),
        ("a.b.c.d.e.f.g.h.i.j.k.evil.com", "1 link masked"),
        ("mail bob@evil.test or bob (at) evil", "2 links masked"),
        ("write to @evilbot", "1 link masked"),
        ("tel:112", "1 link masked"),
        ("localhost:8000/activate", "1 link masked"),
        ("KDRT-WZNB at evil.com or +1 555 123 4567", "1 code, 1 link and 1 phone"),
    ],
)
def test_the_mask_counts_codes_links_and_numbers(lure: str, said: str) -> None:
    """Each kind is counted by itself, and each lure once."""
    assert said in mask_lures(visible(lure, 500)).warning


@pytest.mark.parametrize(
    "words",
    [
        "Invoice 1881 is due today, please pay Northwind 4,200.00 USD.",
        "Refund of $4,200.00 for order INV-1881 of 2026-11-24, 14 items.",
        "Budget for Q4 2026: EUR 3,900, approved by the CFO.",
        "Ordinary words. In the morning it is fine. To be, or not: e.g. this, i.e. so.",
        "PLEASE CONFIRM THIS NOW",
        "Paying ACME for SEPA and VAT in Germany; export as HTML",
        "Version 1.2 costs 3.50 more; 42 rows, 12:30 to 14:00",
        "日本語のテキストです。ありがとう。",
        "Grüße an Zoë, Łódź und Αθήνα",
    ],
)
def test_ordinary_words_stay_readable(words: str) -> None:
    """Sentences, amounts of money, dates and order numbers are not masked."""
    masked = mask_lures(visible(words, 500))
    assert (masked.text, masked.warning) == (words, "")


ANY_TEXT = st.text(st.characters(codec=None), max_size=300)


@given(ANY_TEXT)
def test_masking_changes_only_masked_characters(raw: str) -> None:
    """Nothing moves and nothing is added: each sign stays or is masked."""
    shown = visible(raw, 100_000)
    masked = mask_lures(shown)
    assert len(masked.text) == len(shown)
    assert all(new in {old, "▒"} for old, new in zip(shown, masked.text, strict=True))
    counted = masked.codes + masked.links + masked.numbers
    assert bool(counted) == (masked.text != shown) == bool(masked.warning)


@given(st.text(max_size=60))
def test_the_skeleton_knows_where_each_sign_was(raw: str) -> None:
    """Places grow and lie within the text, so a mask covers what was read."""
    shown = visible(raw, 10_000)
    read, places = skeleton(shown)
    assert len(read) == len(places)
    assert places == sorted(places)
    assert all(0 <= place < len(shown) for place in places)


@pytest.mark.parametrize(
    "part",
    [
        *("a.", "A1 ", "x-", "K ", "a@", ".", "a", "1.", "http:", "é.", " . ", ":"),
        *("[dot]", "zero ", "dot ", "1 2,", "AB ABC ", "((", "www.", "a:1/", "\u200b"),
        *("ⓐ", "[U+"),
    ],
)
def test_masking_takes_linear_time(part: str) -> None:
    """Four thousand characters made to hurt cost the processor no more than a blink."""
    shown = visible((part * 4000)[:4000], 100_000)

    def seconds() -> float:
        """Return what it takes of this thread, which others' work is no part of."""
        started = time.thread_time()
        mask_lures(shown)
        return time.thread_time() - started

    # It takes 5 ms. A pass of the garbage collector in one of them is no verdict.
    assert any(seconds() < 1.0 for _ in range(5))


def test_no_sign_is_left_of_what_was_masked() -> None:
    """Marks and spelled-out hidden characters on a masked sign are masked with it."""
    masked = mask_lures(visible("K\u0332D\u200bR\u0332T\u0332 W\u0332Z\u200bNB\u0332"))
    assert re.fullmatch(r"[▒ ]+", masked.text)
