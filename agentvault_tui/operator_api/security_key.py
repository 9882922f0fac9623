"""A security key at this terminal's machine signs an approval (CTAP 2, WebAuthn).

fido2 is imported where a key is looked for: the console starts without it. Keys are
spoken to on daemon threads: one that hangs keeps neither the dialog nor the exit.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from agentvault_tui.encoder import to_base64url
from agentvault_tui.errors import AgentVaultError

if TYPE_CHECKING:
    from fido2.client import ClientError
    from fido2.ctap import CtapDevice

    from agentvault_tui.operator_api.sessions import KeyChallenge

PIN_LENGTH: Final = 63
"""Bytes of the longest PIN (CTAP 2.1 section 6.5.1)."""
_TOUCH_S: Final = 60.0
"""Seconds that a person has to touch the key, and a key to answer."""
_UNVERIFYING: Final = (
    "this key cannot verify who touches it",
    "set its PIN, or approve another way",
)
_GONE: Final = ("the key was removed, or does not answer", "attach it and try again")
_UNTOUCHED: Final = ("the key was not touched in time", "try again")
_REFUSALS: Final = {
    "PIN_INVALID": ("the PIN of the key is wrong", "try again"),
    "PIN_AUTH_BLOCKED": (
        "three wrong PINs in a row",
        "take the key out, attach it again, and try again",
    ),
    "PIN_BLOCKED": ("the PIN of the key is blocked", "approve another way"),
    "UV_BLOCKED": ("the key does not recognize you", "approve another way"),
    "OPERATION_DENIED": ("the key declined", "try again"),
    "PUAT_REQUIRED": _UNVERIFYING,
    "NO_CREDENTIALS": (
        "none of your passkeys is on this key",
        "add one for it in a browser, or approve another way",
    ),
}
"""The texts of refusals, by their names in CTAP 2.1 section 8.2."""

T = TypeVar("T")
Open: TypeAlias = "Callable[[], CtapDevice]"
"""Opens a device that is attached."""


class SecurityKeyError(AgentVaultError):
    """A security key signed nothing."""


class SecurityKeys:
    """The security keys that are attached to this machine."""

    def __init__(self, listed: Callable[[], list[Open]] | None = None) -> None:
        """Use the keys that *listed* returns in place of the system's list."""
        self._listed = listed or _listed

    async def attached(self) -> bool:
        """Check whether a key is attached, without sending to it."""
        return await _on_thread(lambda _: bool(self._listed()))

    async def needs_pin(self) -> bool:
        """Check whether the key verifies a person by a PIN, and not by itself.

        Raises:
            SecurityKeyError: there is no key, or not one that can verify a person.
        """
        return await _on_thread(self._needs_pin)

    async def sign(
        self, wanted: KeyChallenge, pin: str, touch: Callable[[], None]
    ) -> str:
        """Have the key sign a challenge once its person was verified and touched it.

        Args:
            wanted: the tenant's challenge, its RP id, and the passkeys that may sign.
            pin: of the key, if it needs one.
            touch: called in the event loop when the key waits to be touched.

        Returns:
            the assertion as a browser would encode it, in JSON (WebAuthn section 5.1).

        Raises:
            SecurityKeyError: it signed nothing.
        """
        loop = asyncio.get_running_loop()

        def work(stop: threading.Event) -> str:
            def waits() -> None:
                loop.call_soon_threadsafe(touch)

            return self._sign(wanted, pin, stop, waits)

        return await _on_thread(work)

    def _needs_pin(self, stop: threading.Event) -> bool:
        from fido2.ctap2.base import Ctap2  # noqa: PLC0415 - see the module's docstring

        del stop
        with closing(self._one()) as device:
            try:
                can = Ctap2(device).info.options
            except ValueError:  # CTAP 1 knows no verification
                raise SecurityKeyError(*_UNVERIFYING) from None
        if not (can.get("uv") or can.get("clientPin")):
            raise SecurityKeyError(*_UNVERIFYING)
        return not can.get("uv")

    def _sign(
        self,
        wanted: KeyChallenge,
        pin: str,
        stop: threading.Event,
        touch: Callable[[], None],
    ) -> str:
        from fido2.client import (  # noqa: PLC0415 - see the module's docstring
            ClientError,
            DefaultClientDataCollector,
            Fido2Client,
            UserInteraction,
        )
        from fido2.webauthn import (  # noqa: PLC0415 - as above
            PublicKeyCredentialRequestOptions,
        )

        class Person(UserInteraction):
            def prompt_up(self) -> None:
                touch()

            def request_pin(self, *_: object) -> str:
                return pin

        listed = [{"type": "public-key", "id": one} for one in wanted.credentials]
        options = PublicKeyCredentialRequestOptions.from_dict(
            {
                "challenge": wanted.challenge,
                "rpId": wanted.rp_id,
                "allowCredentials": listed,
                "userVerification": "required",
            }
        )
        # It refuses an RP id that is not of the origin (WebAuthn section 5.1.4.1).
        collector = DefaultClientDataCollector(wanted.origin)
        with closing(self._one()) as device:
            try:
                client = Fido2Client(device, collector, Person())
                signed = client.get_assertion(options, stop).get_response(0)
            except ClientError as error:
                raise _refusal(error) from None
        response = signed.response
        return _assertion(
            signed.raw_id,
            clientDataJSON=bytes(response.client_data),
            authenticatorData=bytes(response.authenticator_data),
            signature=response.signature,
        )

    def _one(self) -> CtapDevice:
        """Open the key that is attached; with two, the person has to choose."""
        attached = self._listed()
        if not attached:
            raise SecurityKeyError("no security key is attached", "attach one")
        if len(attached) > 1:
            what = "several security keys are attached"
            raise SecurityKeyError(what, "leave the one to use")
        return attached[0]()


def _listed() -> list[Open]:
    """List the FIDO devices of this machine; nothing is sent to one before it is open.

    Nothing is listed where fido2 is not installed, or not for this platform.
    """
    try:
        from fido2 import hid  # noqa: PLC0415 - see the module's docstring
    except Exception:  # noqa: BLE001 - fido2 raises that on a platform it lacks
        return []

    with suppress(OSError):
        return [partial(_open, one.path) for one in hid.list_descriptors()]  # type: ignore[no-untyped-call]
    return []


def _open(path: str | bytes) -> CtapDevice:
    from fido2.hid import open_device  # noqa: PLC0415 - see the module's docstring

    return open_device(path)


def _assertion(key: bytes, **response: bytes) -> str:
    encoded = {name: to_base64url(value) for name, value in response.items()}
    named = to_base64url(key)
    return json.dumps(
        {"id": named, "rawId": named, "type": "public-key", "response": encoded}
    )


def _refusal(error: ClientError) -> SecurityKeyError:
    cause = getattr(getattr(error.cause, "code", None), "name", "")
    if cause in _REFUSALS:
        return SecurityKeyError(*_REFUSALS[cause])
    match error.code.name:
        case "DEVICE_INELIGIBLE":
            return SecurityKeyError(*_REFUSALS["NO_CREDENTIALS"])
        case "TIMEOUT":
            return SecurityKeyError(*_UNTOUCHED)
        case "CONFIGURATION_UNSUPPORTED":
            return SecurityKeyError(*_UNVERIFYING)
    return SecurityKeyError("the key refused", "approve another way")


async def _on_thread(work: Callable[[threading.Event], T]) -> T:
    """Run *work* on a daemon thread; its event is set once the caller stops waiting.

    Raises:
        SecurityKeyError: it raised that, the key is gone, or it took too long.
    """
    loop, stop = asyncio.get_running_loop(), threading.Event()
    done: asyncio.Future[T] = loop.create_future()

    def settle(act: Callable[[], None]) -> None:
        if not done.done():  # somebody still waits for it
            act()

    def run() -> None:
        try:
            act = partial(done.set_result, work(stop))
        except SecurityKeyError as error:
            act = partial(done.set_exception, error)
        except Exception:  # noqa: BLE001 - a device may say anything, and go any time
            act = partial(done.set_exception, SecurityKeyError(*_GONE))
        with suppress(RuntimeError):  # the loop is closed: the console has ended
            loop.call_soon_threadsafe(settle, act)

    threading.Thread(target=run, name="security-key", daemon=True).start()
    try:
        async with asyncio.timeout(_TOUCH_S):
            return await done
    except TimeoutError:
        raise SecurityKeyError(*_UNTOUCHED) from None
    finally:
        stop.set()
