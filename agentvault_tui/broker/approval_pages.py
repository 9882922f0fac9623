"""The page on which a person approves away from the console."""

from __future__ import annotations

from agentvault_tui.broker.core import Broker
from agentvault_tui.model import StepUp
from agentvault_tui.web.public import PublicAddress


def approval_page(broker: Broker, stepup: StepUp) -> str | None:
    """Return the link that opens exactly *stepup* on a phone.

    Args:
        broker: the broker.
        stepup: undecided.

    Returns:
        on the embedded tenant its approval page; on Auth0 the page of the device flow,
        while one is under way; None where no other machine can open one.
    """
    settings = broker.settings.tenant
    if public := PublicAddress.of(broker.home, settings):
        return f"{public.url}approve/{stepup.id}"
    if settings.issuer and stepup.device is not None:
        return stepup.device.verification_uri_complete
    return None
