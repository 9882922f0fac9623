"""Folds look-alike, combining and hidden characters to the ones that a person reads."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

_ALIKE: Final = (
    # Cyrillic, Greek, Armenian, Cherokee, Lisu and small capitals, with what they
    # look like: the letters of Unicode's confusables that can spell a code or a host.
    ("АВСЕНІЈКМОРЅТХУԜԚԌѴЗ", "ABCEHIJKMOPSTXYWQGV3"),
    ("аЬсԁеһіјкӏмопрԛгѕтуѵԝхв", "abcdehijklmonpqrstyvwxb"),
    ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹϜ", "ABEZHIKMNOPTYXCF"),
    ("αβγεηικνορτυχωϲϳ", "abyeniKvoptuxwcj"),
    ("ՕՏՍԼհոսօցզյք", "OSULhnuogqjp"),
    ("ᎠᎡᎢᎪᎫᎬᎳᎻᏀᏂᏃᏕᏙᏚᏞᏟᏢᏦᏮᏴ", "DRTAJEWHGhZSVSLCPKGB"),
    ("ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ", "BPDTGKJCZFMNLSRVHWXYAEIOU"),
    ("ʙᴄᴅꜰɢʜᴊᴋʟᴍɴᴘʀꜱᴛᴠᴡᴢʏɪᴇᴏᴜᴀ", "BCDFGHJKLMNPRSTVWZYIEOUA"),
    ("ıɩɡɑꞵ", "iigab"),
    ("∕⁄⧸╱", "////"),
    ("∶꞉ːː", "::::"),
    ("•‧∙⋅・･", "······"),
    ("❨❩⟨⟩【】〔〕", "()<>[][]"),
)
_UNDRAWN: Final = "\u115f\u1160\u2800\U00013441\U00013442\U0001d159"
"""Letters and symbols among `text.UNDRAWN`; marks and controls are left out as such."""
_TABLE: Final = {
    ord(strange): plain
    for strangers, plains in (*_ALIKE, (_UNDRAWN, [""] * len(_UNDRAWN)))
    for strange, plain in zip(strangers, plains, strict=True)
}
_ENCLOSED: Final = (0x1F1E6, 0x1F150, 0x1F170)
"""Where A to Z begins among flags and among letters on dark discs and squares."""
_HIDDEN: Final = re.compile(r"⟦U\+[0-9A-F]{4,6}⟧|\[U\+[0-9A-F]{4,6}\]")
"""The spelling of an invisible character by `text.visible`."""
_BREAK: Final = re.compile(r"⏎|\\n")


class _Folds(dict[int, str]):
    """The folds of characters by their code points, for `str.translate`.

    Characters of which an agent can send a million are not cached: letters without
    case, most of which are their own fold, and unassigned code points.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        if kind in {"Cn", "Co", "Cs"}:
            return ""
        if (
            kind == "Lo"
            and code not in _TABLE
            and not unicodedata.decomposition(character)
        ):
            return character
        folded = unicodedata.normalize("NFKC", _fold(character)).casefold()
        kinds = map(unicodedata.category, folded)
        shown = [c for c, kind in zip(folded, kinds, strict=True) if kind[0] != "C"]
        self[code] = fold = "".join("" if c.isspace() else c for c in shown)
        return fold


_FOLDS: Final = _Folds()


def fold_text(text: str) -> str:
    """Fold a text to the form that a lenient program, or a hurried reader, compares.

    Case, width, look-alike letters, marks, blanks and hidden characters are folded,
    each character by itself: a megabyte takes some milliseconds.
    """
    return _unspelled(text).translate(_FOLDS)


def fold_characters(text: str) -> Iterator[str]:
    """Yield the fold of each character, as `fold_text` joins them."""
    return map(_FOLDS.__getitem__, map(ord, _unspelled(text)))


def _unspelled(text: str) -> str:
    """Leave out hidden characters that are spelled out."""
    if "U+" in text:
        text = _HIDDEN.sub("", text)
    return _BREAK.sub(" ", text) if "\\n" in text or "⏎" in text else text


def skeleton(shown: str) -> tuple[str, list[int]]:
    """Return *shown* as it is read, and for each character its place in *shown*.

    Case stays. Marks and spelled-out hidden characters are left out, so that they
    cannot stand between the characters of a code.
    """
    if shown.isascii() and "[U+" not in shown and "\\n" not in shown:
        return shown, list(range(len(shown)))
    folded: list[str] = []
    places: list[int] = []
    index = 0
    while index < len(shown):
        if hidden := _HIDDEN.match(shown, index):
            index = hidden.end()
            continue
        line_end = _BREAK.match(shown, index)
        for character in " " if line_end else _fold(shown[index]):
            folded.append(character)
            places.append(index)
        index = line_end.end() if line_end else index + 1
    return "".join(folded), places


def _fold(character: str) -> str:
    if character.isascii():
        return character
    for first in _ENCLOSED:
        if 0 <= ord(character) - first < 26:
            return chr(ord("A") + ord(character) - first)
    return "".join(
        _plain(part)
        for part in unicodedata.normalize("NFKD", character)
        if not unicodedata.category(part).startswith("M")
    )


def _plain(character: str) -> str:
    if character.isascii():
        return character
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    if unicodedata.category(character) == "Pd":
        return "-"
    return _TABLE.get(ord(character), character)
