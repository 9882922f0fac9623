"""Parse form and JSON bodies into one mapping, or raise a typed error."""

from __future__ import annotations

import binascii
import json
import math
import re
from typing import Any, Final, NoReturn

DEPTH_CAP: Final = 6
MEMBER_CAP: Final = 64
FIELD_CAP: Final = 4_000
VALUE_CAP: Final = 4_096
"""Values in one JSON text: reading more would hold up everyone else."""
_MARK_CAP: Final = 2 * VALUE_CAP
"""Commas and brackets, also those in texts: counted before anything is read."""
_HOLDING_JSON: Final = frozenset({"authorization_details"})
"""Parameters whose text is JSON (RFC 9396 section 2): the caps hold for each member in
it, as in a JSON body, and not for its text."""
INTEGER_CAP: Final = 2**53 - 1
"""The numbers that every JSON reader agrees on (RFC 8259 section 6), and RFC 8785 can
write."""

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LONGEST_INTEGER: Final = 17
_TOO_MANY: Final = f"JSON may have {VALUE_CAP} values"


class BodyError(Exception):
    """A body that cannot be read; the text is ours alone, safe to send."""

    def __init__(self, status: int, text: str, member: str | None = None) -> None:
        """Store the HTTP *status*, the sentence, and the *member* it is about."""
        super().__init__(text)
        self.status = status
        self.text = text
        self.member = member


def parse_body(content_type: bytes, body: bytes) -> dict[str, Any]:
    """Read a form or a JSON object; members that say nothing are left out.

    A form's values are strings. An empty form value (RFC 6749 section 3.1) and a JSON
    null count as absent.

    Args:
        content_type: the header's value.
        body: all of it.

    Returns:
        the members by name.

    Raises:
        BodyError: 415 for another content type, 400 for everything else.
    """
    # Fast paths: what nearly every client sends.
    if content_type == b"application/x-www-form-urlencoded":
        return parse_form(body)
    if not body and not content_type:
        return {}
    kind = _media_type(content_type)
    if kind == "application/x-www-form-urlencoded":
        return parse_form(body)
    if kind == "application/json":
        return parse_object(body)
    raise BodyError(
        415, "send application/x-www-form-urlencoded or application/json, in UTF-8"
    )


def parse_form(body: bytes) -> dict[str, str]:
    """Read ``application/x-www-form-urlencoded``, strictly.

    Args:
        body: all of it.

    Returns:
        the fields by name.

    Raises:
        BodyError: a name twice, bad percent-encoding, not UTF-8, or past a cap.
    """
    if body.startswith(b"{"):
        # curl and many clients send JSON under a form's name unless told otherwise.
        raise BodyError(400, "the body is JSON: say Content-Type: application/json")
    form: dict[str, str] = {}
    pieces = body.split(b"&") if body else []
    if len(pieces) > MEMBER_CAP:
        raise BodyError(400, f"a form may have {MEMBER_CAP} parameters")
    for piece in pieces:
        if not piece:
            continue
        raw_name, _, raw_value = piece.partition(b"=")
        name = form_value(raw_name)
        if name in form:
            # RFC 6749 section 3.2: no parameter more than once.
            raise BodyError(400, "a parameter is given twice")
        form[name] = form_value(raw_value, capped=name not in _HOLDING_JSON)
    return {name: value for name, value in form.items() if value}


def form_value(raw: bytes, *, capped: bool = True) -> str:
    """Decode one form-encoded name or value; not *capped*, it may be of any length."""
    if b"+" in raw:
        raw = raw.replace(b"+", b" ")
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise BodyError(400, "a parameter has a bad percent-encoding")
        # Decoded in C: with "=" for "%" this is quoted-printable (RFC 2045 section
        # 6.7), which has no other rule for text whose every "=" begins an escape.
        raw = binascii.a2b_qp(raw.replace(b"=", b"=3D").replace(b"%", b"="))
    return _checked(_text(raw), capped=capped)


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; its null members are left out."""
    value = _loads(_text(body))
    if not isinstance(value, dict):
        raise BodyError(400, "the JSON body must be an object")
    for name, member in value.items():
        try:
            _checked(name)
            if isinstance(member, str):
                _checked(member, capped=name not in _HOLDING_JSON)
            else:
                # The object is the envelope: each field may be as deep as the cap.
                _check(member, DEPTH_CAP)
        except BodyError as error:
            raise BodyError(error.status, error.text, name) from None
    return {name: member for name, member in value.items() if member is not None}


def parse_json(text: str, depth: int = DEPTH_CAP) -> object:
    """Read JSON that means the same to every reader, to a *depth* of levels."""
    value = _loads(text)
    if (
        len(text) > FIELD_CAP
        or not text.isascii()
        or "\\u" in text
        or text.count("{") + text.count("[") > depth
    ):  # else there is nothing in it that could be past a cap
        _check(value, depth)
    return value


def _loads(text: str) -> object:
    if text.count(",") + text.count("{") + text.count("[") > _MARK_CAP:
        raise BodyError(400, _TOO_MANY)
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise BodyError(400, f"JSON may have {DEPTH_CAP} levels") from None
    except ValueError:
        raise BodyError(400, "the JSON is malformed") from None


def _media_type(content_type: bytes) -> str | None:
    """Return the type alone; `None` when its charset is not UTF-8."""
    kind, _, parameters = content_type.decode("latin-1").lower().partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') not in {"utf-8", "utf8"}:
            return None
    return kind.strip()


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BodyError(400, "the body is not UTF-8") from None


def _checked(text: str, *, capped: bool = True) -> str:
    if capped and len(text) > FIELD_CAP:
        raise BodyError(400, f"a field may have {FIELD_CAP} characters")
    if "\0" in text:
        raise BodyError(400, "a field holds a NUL character")
    if not text.isascii() and _SURROGATE.search(text):
        raise BodyError(400, "a field holds half a surrogate pair")
    return text


def _check(value: Any, depth: int) -> None:
    """Hold the caps on everything inside *value*, level by level."""
    level: list[Any] = [value]
    count = 0
    while level:
        count += len(level)
        if count > VALUE_CAP:
            raise BodyError(400, _TOO_MANY)
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _checked(item)
            elif isinstance(item, dict):
                for name in item:
                    _checked(name)
                inner.append(item.values())
            elif isinstance(item, list):
                inner.append(item)
        if inner and depth == 0:
            raise BodyError(400, f"JSON may have {DEPTH_CAP} levels")
        depth -= 1
        level = [item for items in inner for item in items]


def _pairs(members: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(members)
    if len(table) != len(members):
        # RFC 8259 section 4: which of the two counts would be the reader's choice.
        raise BodyError(400, "a JSON object has a key twice")
    if len(table) > MEMBER_CAP:
        raise BodyError(400, f"a JSON object may have {MEMBER_CAP} members")
    return table


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER or abs(number := int(digits)) > INTEGER_CAP:
        raise BodyError(400, "a number is out of range")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise BodyError(400, "a number is out of range")
    return number


def _constant(_name: str) -> NoReturn:
    raise BodyError(400, "NaN and Infinity are not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs,
    parse_int=_integer,
    parse_float=_float,
    parse_constant=_constant,
)
