"""A media type is read in one way, or not at all."""

from __future__ import annotations

import pytest

from agentvault_tui.gateway.media_types import MediaType


def test_a_media_type_keeps_the_values_of_its_parameters() -> None:
    """Type and names are in lower case; a value is as the client wrote it."""
    media = MediaType.parse(' Multipart/Form-Data ; Boundary="A b"; charset=UTF-8')
    assert str(media) == 'multipart/form-data; boundary="A b"; charset="UTF-8"'
    assert media is not None
    assert (media.boundary, media.is_utf8) == ("A b", True)


@pytest.mark.parametrize(
    "text", ["", "a", "a/b/c", "a/b; c=d; C=e", 'a/b; c="d\\"e"', "a/b; x=" + "c" * 506]
)
def test_a_type_of_several_readings_or_without_bound_is_none(text: str) -> None:
    """Programs take the first or the last of two, and truncate a long one."""
    assert MediaType.parse(text) is None
    assert MediaType.parse(f"a/b; x={'c' * 505}") is not None
