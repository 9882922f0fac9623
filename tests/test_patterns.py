"""No text makes a regular expression of the product slow (CWE-1333)."""

from __future__ import annotations

import ast
import itertools
import pkgutil
import re
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final, NamedTuple

import pytest

import agentvault_tui
from agentvault_tui.gateway import echo

ENDS: Final = ("", "\x00", "!", "\n")
"""Most patterns match none of them at their end."""
MOST_TEXTS: Final = 40
LONG: Final = 16_000
"""Repetitions by which a time that grows with their square is seen."""
FEW: Final = LONG // 8
SQUARED: Final = 24
"""Eight times the text takes 8 times as long, or 64 times if its square counts."""
REPEATS: Final = {ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT}
SEARCHING: Final = {"search", "finditer", "findall", "sub", "subn", "split"}
SLOW_S: Final = 0.1
"""Many times what a pattern needs that takes time in proportion to the text."""


BOUNDED: Final = frozenset([echo._PARTIAL.pattern])
"""Searched in the last bytes of a text alone."""


class Found(NamedTuple):
    """A pattern of the product, and whether text is searched for it."""

    pattern: re.Pattern[Any]
    searched: bool


def patterns() -> dict[str, Found]:
    """Return the patterns that the package compiles or names, by their text."""
    compiled, searched = dict[str, re.Pattern[Any]](), set[str]()
    names = dict[str, set[str]]()
    for module in pkgutil.walk_packages(agentvault_tui.__path__, "agentvault_tui."):
        if module.name.endswith("__main__"):
            continue
        loaded = import_module(module.name)
        for name, value in vars(loaded).items():
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, re.Pattern):
                    names.setdefault(_place(module.name, name), set()).add(
                        repr(one.pattern)
                    )
                    compiled[repr(one.pattern)] = one
        for node in ast.walk(ast.parse(Path(str(loaded.__file__)).read_bytes())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="re"), attr=method),
                    args=[ast.Constant(value=str() | bytes() as text), *_],
                ):
                    compiled.setdefault(repr(text), re.compile(text))
                    names.setdefault(method, set()).add(repr(text))
                    searched |= {repr(text)} if method in SEARCHING else set()
                case ast.Attribute(value=ast.Name(id=name), attr=method):
                    place = _place(module.name, name)
                    searched |= {place} if method in SEARCHING else set()
    searched |= {text for name in searched for text in names.get(name, ())}
    return {text: Found(one, text in searched) for text, one in compiled.items()}


def _place(module: str, name: str) -> str:
    """Return a name that says which variable is meant, in any module."""
    return f"{module} {name}" if name.startswith("_") else name


def texts(tree: Any) -> list[str]:
    """Return short texts that a part of a pattern matches, of different shapes."""
    every = [""]
    for op, value in tree:
        every = [
            "".join(pair)
            for pair in itertools.islice(
                itertools.product(every, _texts_of(op, value)), MOST_TEXTS
            )
        ]
    return list(dict.fromkeys(every))


def _texts_of(op: Any, value: Any) -> list[str]:
    if op is ops.LITERAL:
        return [chr(value)]
    if op is ops.NOT_LITERAL:
        return [next(one for one in "a-1 " if ord(one) != value)]
    if op is ops.ANY:
        return ["a", " "]
    if op is ops.IN:
        return _members(value)
    if op is ops.BRANCH:
        return [text for branch in value[1] for text in texts(branch)[:4]]
    if op is ops.SUBPATTERN:
        return texts(value[3])
    if op is ops.ATOMIC_GROUP:
        return texts(value)
    if op in REPEATS:
        least, _, inner = value
        some = [text * max(least, 1) for text in texts(inner)]
        return some if least else ["", *some]
    return [""]  # a place, or a look around


def _members(value: Any) -> list[str]:
    (first, _), *_ = value
    if first is ops.NEGATE:
        found = re.compile("a")
        listed = set(_members(value[1:]))
        return [one for one in "a1 -" if one not in listed][:2] or ["\u00e9"]
    found = []
    for op, one in value:
        if op is ops.LITERAL:
            found.append(chr(one))
        elif op is ops.RANGE:
            found.append(chr(one[0]))
        elif op is ops.CATEGORY:
            spaces = one in {ops.CATEGORY_SPACE, ops.CATEGORY_NOT_WORD}
            found.append(" " if spaces else "1")
    return found[:3]


def loops(tree: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text that a pattern repeats, with one that leads to it."""
    for op, value in tree:
        if op in REPEATS and value[1] > 8:
            for text in texts(value[2]):
                yield before, text
        inner = {
            ops.SUBPATTERN: lambda value: [value[3]],
            ops.ATOMIC_GROUP: lambda value: [value],
            ops.BRANCH: lambda value: value[1],
            **dict.fromkeys(REPEATS, lambda value: [value[2]]),
        }.get(op, lambda _: [])
        for one in inner(value):
            yield from loops(one, before)
        before += (_texts_of(op, value) or [""])[-1]


def slow_text(pattern: re.Pattern[Any], *, searched: bool) -> str | None:
    """Return a text for which the pattern's time grows faster than the text."""
    is_bytes = isinstance(pattern.pattern, bytes)
    source = pattern.pattern.decode("latin-1") if is_bytes else pattern.pattern
    every = sorted(set(loops(parser.parse(source, pattern.flags & ~re.UNICODE))))
    run = pattern.search if searched else pattern.fullmatch

    def took(before: str, pump: str, count: int, end: str) -> float:
        text: Any = before + pump * count + end
        if is_bytes:
            text = text.encode("latin-1", "replace")
        began = time.thread_time()
        run(text)
        return time.thread_time() - began

    # First few, then many: the first time that doubles ends it.
    for count in (*range(8, 30, 2), LONG):
        for (before, pump), end in itertools.product(every[:MOST_TEXTS], ENDS):
            if took(before, pump, count, end) > SLOW_S and (
                count < LONG
                or min(took(before, pump, LONG, end) for _ in range(3))
                > SQUARED * min(took(before, pump, FEW, end) for _ in range(3))
            ):
                return before + pump * min(count, 8) + end
    return None


@pytest.mark.parametrize(
    "text", [r"(a+)+b", r"(?:\w|\d+)*!", r"a/b(?:;[ \t]*(?:[\w]+=[^\s\";,]+)?[ \t]*)*"]
)
def test_a_pattern_that_backtracks_is_found(text: str) -> None:
    """The last one once read media types: 85 bytes held the event loop for days."""
    assert slow_text(re.compile(text), searched=False)


def test_a_search_that_begins_again_at_each_place_is_found() -> None:
    """Its time grows with the square of the text."""
    assert slow_text(re.compile(r"\\+u\Z"), searched=True)


def test_no_pattern_of_the_product_backtracks() -> None:
    """Neither for a text that doubles the time, nor for one that squares it."""
    slow = {
        text: found
        for text, (pattern, searched) in patterns().items()
        if pattern.pattern not in BOUNDED
        and (found := slow_text(pattern, searched=searched))
    }
    assert not slow
