"""``/tenants/settings``, ``/prompts`` and ``/guardian``: for the whole tenant."""

from __future__ import annotations

from typing import Final

from agentvault_tui.tenant.management.api import Answer, Call, Endpoint
from agentvault_tui.tenant.management.bodies import (
    checked,
    flag,
    integer,
    one_of,
    table,
    text,
)
from agentvault_tui.tenant.management.problems import ApiError, bad_body, not_found
from agentvault_tui.tenant.tenant_settings import ALWAYS, FACTORS, TenantSettings
from agentvault_tui.tenant.usercodes import CodeFormat

_PROMPTS: Final = {
    "universal_login_experience": "new",
    "identifier_first": False,
    "webauthn_platform_first_factor": False,
}
_MEMBERS: Final = {
    "friendly_name": text(128, 0),
    "support_email": text(254, 0),
    "support_url": text(1024, 0),
    "flags": table({}),
    "device_flow": table({"charset": one_of("base20", "digits"), "mask": text(20)}),
    "customize_mfa_in_postlogin_action": flag,
    "session_lifetime": integer(1, 8760),
    "idle_session_lifetime": integer(1, 8760),
}


class SettingsCalls:
    """The calls about the whole tenant."""

    def __init__(self, settings: TenantSettings) -> None:
        """Act on *settings*."""
        self._settings = settings

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        settings, guardian = "/tenants/settings", "/guardian"
        return [
            Endpoint("GET", settings, ("read:tenant_settings",),
                     "Get tenant settings", self._get),
            Endpoint("PATCH", settings, ("update:tenant_settings",),
                     "Update tenant settings", self._change),
            Endpoint("GET", "/prompts", ("read:prompts",), "Get prompt settings",
                     lambda _: Answer(200, _PROMPTS)),
            Endpoint("GET", f"{guardian}/factors", ("read:guardian_factors",),
                     "Get Factors and multi-factor authentication details",
                     self._factors),
            Endpoint("PUT", f"{guardian}/factors/{{name}}",
                     ("update:guardian_factors",),
                     "Update multi-factor authentication type", self._set_factor),
            Endpoint("GET", f"{guardian}/policies", ("read:mfa_policies",),
                     "Get multi-factor authentication policies", self._policies),
            Endpoint("PUT", f"{guardian}/policies", ("update:mfa_policies",),
                     "Update multi-factor authentication policies", self._set_policies),
        ]  # fmt: skip

    def _get(self, _: Call) -> Answer:
        return Answer(200, self._settings.all())

    def _change(self, call: Call) -> Answer:
        body = checked(call.body, _MEMBERS)
        if body.get("device_flow") is not None:
            problem = CodeFormat.of(body["device_flow"]).problem
            if problem is not None:
                raise bad_body("device_flow", problem)
        self._settings.change(body)
        return Answer(200, self._settings.all())

    def _factors(self, _: Call) -> Answer:
        listed = [
            {"name": name, "enabled": enabled, "trial_expired": False}
            for name, enabled in self._settings.factors().items()
        ]
        return Answer(200, listed)

    def _set_factor(self, call: Call) -> Answer:
        name = call.path["name"]
        if name not in FACTORS:
            raise not_found("That factor does not exist.", "inexistent_factor")
        body = checked(call.body, {"enabled": flag}, "enabled")
        self._settings.set_factor(name, enabled=body["enabled"])
        return Answer(200, {"enabled": body["enabled"]})

    def _policies(self, _: Call) -> Answer:
        return Answer(200, self._settings.policies())

    def _set_policies(self, call: Call) -> Answer:
        if not isinstance(call.body, list) or len(call.body) > 1:
            raise ApiError(400, "Payload validation error: 'Expected an array'",
                           "invalid_body")  # fmt: skip
        if any(word not in {ALWAYS, "confidence-score"} for word in call.body):
            raise bad_body("0", "Must be all-applications or confidence-score")
        self._settings.set_policies(call.body)
        return Answer(200, self._settings.policies())
