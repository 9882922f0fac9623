"""A passkey in software, which signs whatever a test has it say (WebAuthn)."""

from __future__ import annotations

import hashlib
import json
import secrets
import struct
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import bytes_to_base64url as b64

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40


class Authenticator:
    """One credential; each member of it may be made to lie."""

    def __init__(self, url: str, *, synced: bool = False) -> None:
        self.origin = url.rstrip("/")
        self.rp_id = url.split("/")[2].partition(":")[0]
        self.flags = UP | UV | (BE | BS if synced else 0)
        self.counter = 0
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = secrets.token_bytes(16)
        self.client: dict[str, Any] = {"crossOrigin": False}
        """More members of the client data."""

    def create(self, options: dict[str, Any]) -> str:
        """Answer the options of a registration."""
        point = self.key.public_key().public_numbers()
        x, y = point.x.to_bytes(32), point.y.to_bytes(32)
        public = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})
        length = struct.pack(">H", len(self.id))
        data = self._data(AT) + bytes(16) + length + self.id + public
        attested = {"fmt": "none", "attStmt": {}, "authData": data}
        client = self._client("webauthn.create", options["challenge"])
        return self._answer(
            clientDataJSON=client, attestationObject=cbor2.dumps(attested)
        )

    def get(self, options: dict[str, Any]) -> str:
        """Answer the options of a sign-in or an approval."""
        self.counter += 1
        client = self._client("webauthn.get", options["challenge"])
        data = self._data(0)
        signed = data + hashlib.sha256(client).digest()
        signature = self.key.sign(signed, ec.ECDSA(hashes.SHA256()))
        return self._answer(
            clientDataJSON=client, authenticatorData=data, signature=signature
        )

    def _data(self, more: int) -> bytes:
        return self.data(self.flags | more)

    def data(self, flags: int) -> bytes:
        """Return authenticator data with those flags (section 6.1)."""
        head = hashlib.sha256(self.rp_id.encode()).digest()
        return head + struct.pack(">BI", flags, self.counter)

    def _client(self, kind: str, challenge: str) -> bytes:
        told = {"type": kind, "challenge": challenge, "origin": self.origin}
        return json.dumps(told | self.client).encode()

    def _answer(self, **response: bytes) -> str:
        key = b64(self.id)
        encoded = {name: b64(value) for name, value in response.items()}
        return json.dumps(
            {"id": key, "rawId": key, "type": "public-key", "response": encoded}
        )
