"""What is set for the whole tenant: its defaults, and what an administrator changed."""

from __future__ import annotations

import json
from typing import Any, Final

from agentvault_tui.tenant.objects import merged
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.usercodes import CodeFormat

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

    def code_format(self) -> CodeFormat:
        """Return what user codes look like."""
        return CodeFormat.of(self.all()["device_flow"])

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

    def mfa_always(self) -> bool:
        """Tell whether every login needs a second factor: it breaks Token Vault."""
        return ALWAYS in self.policies()

    def _read(self, name: str, default: Any) -> Any:
        said = self._store.fact(name)
        return default if said is None else json.loads(said)

    def _write(self, name: str, value: Any) -> None:
        self._store.remember(name, json.dumps(value))
