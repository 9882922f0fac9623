"""Parts of a multipart body have one reading, whatever a server's parser is like."""

from __future__ import annotations

import re
from urllib.parse import unquote

import multipart
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.multipart_body import Part, encode_multipart, read_parts

VALUE = r"(?:\"(?:\\\"|[^\"])*\"|[^\s()<>,;:\\\"/\[\]?=]+)"
LAX_NAME = re.compile(rf"Content-Disposition:.*;\s*name=({VALUE})", re.IGNORECASE)
"""Of Rack 2.2 and 3.0, which Rails 6.1 to 7.1 use: `MULTIPART_CONTENT_DISPOSITION`."""
LAX_FILE = re.compile(r"filename=", re.IGNORECASE)
PIECES = [
    "x",
    "a",
    "[b]",
    ".",
    " ",
    "; name=amount",
    "name=",
    "filename=",
    ";",
    "=",
    "'",
    "*",
    ":",
    ",",
    "%3b",
    "%3B name%3Damount",
]
TEXT = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)


def body(name: str, file: str | None, kind: str | None) -> bytes:
    disposition = f'form-data; name="{name}"'
    if file is not None:
        disposition += f'; filename="{file}"'
    typed = "" if kind is None else f"\r\nContent-Type: {kind}"
    head = f"Content-Disposition: {disposition}{typed}"
    return f"--b\r\n{head}\r\n\r\n5000\r\n--b--\r\n".encode()


@given(TEXT, st.none() | TEXT, st.none() | TEXT.map('image/png; x="{}"'.format))
@example("x; name=amount", None, None)
@example("f", "a; name=amount", None)
@example("f", "a%3b name=amount", None)
@example("f", "a", "image/png; name=amount")
@example("f", "a", 'image/png; x="; name=amount"')
def test_a_lax_parser_reads_the_name_of_a_part_that_was_decided(
    name: str, file: str | None, kind: str | None
) -> None:
    """No name, file name or type of a part holds a name in the syntax of a header."""
    try:
        (one,) = read_parts(body(name, file, kind), "b", 50)
    except UnreadableRequestError:
        return
    head = one.head.decode()
    for text in (head, unquote(head)):
        (found,) = LAX_NAME.findall(text)
        assert found.strip('"') == one.name
        assert len(re.findall("name=", text)) == 1 + one.is_file
        assert len(LAX_FILE.findall(text)) == one.is_file


@pytest.mark.parametrize(
    ("name", "file"),
    [("user[name]", None), ("files[0]", "it's, a: report (2).pdf"), ("a.$b-c d", "ü")],
)
def test_usual_names_and_file_names_pass(name: str, file: str | None) -> None:
    """Those of frameworks, and those of people."""
    (one,) = read_parts(body(name, file, "image/png" if file else None), "b", 50)
    assert (one.name, one.filename) == (name, file)


@given(
    st.lists(
        st.builds(
            Part,
            st.from_regex(r"[a-z][a-z0-9 .-]{0,8}", fullmatch=True),
            st.binary(max_size=60),
            st.none() | st.sampled_from(["a.txt", "ü.png"]),
            st.none(),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_another_parser_reads_the_parts_of_a_multipart_body(parts: list[Part]) -> None:
    """No content of a part ends it or begins another one."""
    boundary, encoded = encode_multipart(parts)
    read, current = [], bytearray()
    with multipart.PushMultipartParser(boundary, strict=True) as parser:
        for event in parser.parse(encoded):
            if isinstance(event, multipart.MultipartSegment):
                head, current = event, bytearray()
            elif event is None:
                read.append(Part(head.name, bytes(current), head.filename))
            else:
                current += event
    assert read == parts
