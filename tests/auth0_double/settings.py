"""``/tenants/settings``, ``/prompts`` and ``/guardian``: for the whole tenant."""

from __future__ import annotations

import json
from typing import Any, Final

from agentvault_tui.tenant.management.wire import ApiError, bad_body
from agentvault_tui.tenant.store import Store, merged
from auth0_double.bodies import checked, flag, integer, one_of, table, text
from auth0_double.calls import Answer, Call, Endpoint

_SETTINGS, _FACTORS, _POLICIES = "tenant_settings", "guardian_factors", "mfa_policies"
FACTORS: Final = (
    "otp", "push-notification", "sms", "email", "duo", "webauthn-roaming",
    "webauthn-platform", "recovery-code",
)  # fmt: skip
REVOKES_GRANT: Final = "revoke_refresh_token_grant"
"""The flag that has a revoked refresh token take its siblings along."""
CONNECTS_ALL: Final = "enable_client_connections"
"""The flag that gives a new application every connection; on, as at Auth0."""
ALWAYS: Final = "all-applications"
_DEFAULTS: Final[dict[str, Any]] = {
    "friendly_name": "AgentVault",
    "enabled_locales": ["en"],
    "flags": {REVOKES_GRANT: False, CONNECTS_ALL: True},
    "device_flow": {"charset": "base20", "mask": "****-****"},
    "customize_mfa_in_postlogin_action": True,
    "default_audience": "",
    "default_directory": "",
    "session_lifetime": 168,
}


class TenantSettings:
    """What is set for the whole tenant."""

    def __init__(self, store: Store) -> None:
        """Keep it in *store*."""
        self._store = store

    def all(self) -> dict[str, Any]:
        """Return every setting."""
        held = self._read(_SETTINGS, {})
        flags = {**_DEFAULTS["flags"], **held.get("flags", {})}
        return {**merged(_DEFAULTS, held), "flags": flags}

    def change(self, changes: dict[str, Any]) -> None:
        """Set some, flags beside those there are; a null goes back to the default."""
        held = self._read(_SETTINGS, {})
        if changes.get("flags") is not None:
            flags = merged(held.get("flags", {}), changes["flags"])
            changes = {**changes, "flags": flags}
        self._write(_SETTINGS, merged(held, changes))

    @property
    def connects_all(self) -> bool:
        """Whether a new application gets every connection there is."""
        return self.all()["flags"][CONNECTS_ALL] is not False

    def factors(self) -> dict[str, bool]:
        """Return which factors may be used; one-time codes, to begin with."""
        held = self._read(_FACTORS, {"otp": True})
        return {name: bool(held.get(name)) for name in FACTORS}

    def set_factor(self, name: str, *, enabled: bool) -> None:
        """Allow a factor, or not."""
        self._write(_FACTORS, {**self.factors(), name: enabled})

    def policies(self) -> list[str]:
        """Return when a second factor is asked for besides what Actions do."""
        return list(self._read(_POLICIES, []))

    def set_policies(self, policies: list[str]) -> None:
        """Set them."""
        self._write(_POLICIES, policies)

    def _read(self, name: str, default: Any) -> Any:
        said = self._store.fact(name)
        return default if said is None else json.loads(said)

    def _write(self, name: str, value: Any) -> None:
        self._store.remember(name, json.dumps(value))


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
            raise ApiError(404, "That factor does not exist.", "inexistent_factor")
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
