"""Server-sent events: the same as a reference decoder gives, however they are cut."""

from __future__ import annotations

from httpx_sse._decoders import SSEDecoder
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.operator_api.sse import Decoder, Frame

_WORD = st.text(
    st.characters(exclude_characters="\r\n\0\x85\u2028\u2029", codec="utf-8"),
    max_size=8,
)
_LINE = st.one_of(
    st.builds("data: {}".format, _WORD),
    st.builds("data:{}".format, _WORD),
    st.builds("event: {}".format, _WORD.filter(bool)),
    st.builds("id: {}".format, st.integers(0, 99)),
    st.builds(": {}".format, _WORD),
    st.just("data"),
    st.just("nonsense"),
    st.just(""),
)


@given(
    st.lists(_LINE, max_size=20),
    st.lists(st.integers(1, 12), min_size=1),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_events_are_decoded_as_the_reference_decoder_does(
    lines: list[str], cuts: list[int], end: str
) -> None:
    """Every event comes out once, whole, wherever the bytes were cut."""
    reference = SSEDecoder()
    decoded = [reference.decode(line) for line in [*lines, ""]]
    expected = [Frame(e.event, e.id, e.data) for e in decoded if e and e.data]
    raw = end.join([*lines, "", ""]).encode() + (b":" if end == "\r" else b"")
    decoder, found, at = Decoder(), [], 0
    while at < len(raw):
        size = cuts[at % len(cuts)]
        found += decoder.feed(raw[at : at + size])
        at += size
    assert [frame for frame in found if frame.data] == expected


def test_an_id_stays_until_the_next() -> None:
    """Frames without an id carry the last one, as the standard has it."""
    frames = Decoder().feed(b"id: 7\ndata: a\n\nevent: agent\ndata: b\n\n")
    assert frames == [Frame("message", "7", "a"), Frame("agent", "7", "b")]
