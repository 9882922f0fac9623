"""Answers in JSON, which no cache keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


def json_reply(
    status: int, body: Any = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer; with a *body* of None it has none, and no media type.

    ``no-store`` on every one: tokens are in some, secrets in others (RFC 6749 section
    5.1).
    """
    return Response(
        b"" if body is None else json.dumps(body).encode(),
        status,
        headers={"cache-control": "no-store", **(headers or {})},
        media_type=None if body is None else "application/json",
    )
