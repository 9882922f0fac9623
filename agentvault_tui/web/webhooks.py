"""Signs requests by the specification Standard Webhooks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime


def webhook_headers(
    secret: str, message_id: str, at: datetime, body: bytes
) -> list[tuple[str, str]]:
    """Return the headers that identify and sign a message (``v1``, HMAC-SHA256).

    Args:
        secret: ``whsec_`` and the key in base64, or that base64 alone.
        message_id: the same at each try.
        at: the time of sending; receivers refuse old requests.
        body: exactly the sent bytes.

    Returns:
        ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``.

    Raises:
        ValueError: the secret is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise ValueError("the secret is not whsec_ and a key in base64")
    stamp = str(int(at.timestamp()))
    signed = b".".join((message_id.encode(), stamp.encode(), body))
    made = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", stamp),
        ("webhook-signature", f"v1,{made}"),
    ]
