"""Shapes of the operators' API as the plain JSON that goes over the wire."""

from __future__ import annotations

from typing import Any

import msgspec

from agentvault_tui.operator_api.codec import encode
from agentvault_tui.operator_api.shapes import WireShape


def as_json(shape: WireShape) -> Any:
    return msgspec.json.decode(encode(shape))
