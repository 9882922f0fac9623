"""A security key in software: CTAP 2 with a PIN, behind fido2's interface of a device.

It signs what `support.authenticator` signs; each member of it may be made to lie.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.ctap2.pin import PinProtocolV1
from fido2.hid import CAPABILITY, CTAPHID
from support.authenticator import UP, UV, Authenticator

GET_INFO, GET_ASSERTION, CLIENT_PIN = 0x04, 0x02, 0x06
PIN = "4815"


class SoftKey(CtapDevice):
    """One key with one credential, that of *passkey*."""

    def __init__(self, passkey: Authenticator, *, pin: str = PIN) -> None:
        self.passkey = passkey
        self.options: dict[str, bool] = {"rk": True, "up": True, "clientPin": True}
        self.pin = pin
        self.wrong: CtapError.ERR = CtapError.ERR.PIN_INVALID
        """Its answer to a wrong PIN."""
        self.touched: Callable[[Event], bool] = lambda _: True
        """Waits for a touch; false if the caller gave it up."""
        self.gone_at = ""
        """The command at which it is removed."""
        self.seen: list[str] = []
        self.closed = 0
        self._protocol = PinProtocolV1()
        self._agreed = ec.generate_private_key(ec.SECP256R1())
        self._token = os.urandom(32)

    @property
    def capabilities(self) -> int:
        return CAPABILITY.CBOR

    @classmethod
    def list_devices(cls) -> Iterator[CtapDevice]:
        return iter(())

    def close(self) -> None:
        self.closed += 1

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        """Answer one command (CTAP 2.1 section 6)."""
        assert cmd == CTAPHID.CBOR
        asked: Any = cbor.decode(data[1:]) if data[1:] else {}
        names = {GET_INFO: "info", GET_ASSERTION: "sign", CLIENT_PIN: "pin"}
        name = names[data[0]]
        self.seen.append(name)
        if name == self.gone_at:
            raise OSError(19, "No such device")
        try:
            if name == "sign":
                answer = self._sign(asked, event or Event(), on_keepalive)
            else:
                answer = self._info() if name == "info" else self._pin(asked)
        except CtapError as error:
            return bytes([int(error.code)])
        return b"\0" + cbor.encode(answer)

    def _info(self) -> dict[int, Any]:
        return {1: ["FIDO_2_0"], 3: bytes(16), 4: self.options, 5: 1200, 6: [1]}

    def _pin(self, asked: dict[int, Any]) -> dict[int, Any]:
        """Agree on a key, or give the token that shows the PIN (section 6.5.5)."""
        if asked[2] == 2:
            point = self._agreed.public_key().public_numbers()
            x, y = point.x.to_bytes(32), point.y.to_bytes(32)
            return {1: {1: 2, 3: -25, -1: 1, -2: x, -3: y}}
        theirs = asked[3]
        point = ec.EllipticCurvePublicNumbers(
            *(int.from_bytes(theirs[-2]), int.from_bytes(theirs[-3])), ec.SECP256R1()
        )
        shared = hashlib.sha256(
            self._agreed.exchange(ec.ECDH(), point.public_key())
        ).digest()
        told = self._protocol.decrypt(shared, asked[6])
        if told != hashlib.sha256(self.pin.encode()).digest()[:16]:
            raise CtapError(self.wrong)
        return {2: self._protocol.encrypt(shared, self._token)}

    def _sign(
        self, asked: dict[int, Any], stop: Event, waits: Callable[[STATUS], None] | None
    ) -> dict[int, Any]:
        """Sign for a credential that it has, once touched (section 6.2)."""
        listed = [one["id"] for one in asked.get(3, [])]
        if asked[1] != self.passkey.rp_id or self.passkey.id not in listed:
            raise CtapError(CtapError.ERR.NO_CREDENTIALS)
        if asked.get(6) is not None:
            shown = hmac.digest(self._token, asked[2], "sha256")[:16]
            if asked[6] != shown:
                raise CtapError(CtapError.ERR.PIN_AUTH_INVALID)
        present = asked.get(5, {}).get("up", True)
        if present:
            if waits is not None:
                waits(STATUS.UPNEEDED)
            if not self.touched(stop):
                raise CtapError(CtapError.ERR.KEEPALIVE_CANCEL)
            self.passkey.counter += 1
        flags = self.passkey.flags if present else UV
        data = self.passkey.data(flags)
        signature = self.passkey.key.sign(data + asked[2], ec.ECDSA(hashes.SHA256()))
        named = {"type": "public-key", "id": self.passkey.id}
        return {1: named, 2: data, 3: signature}


__all__ = ["PIN", "UP", "UV", "SoftKey"]
