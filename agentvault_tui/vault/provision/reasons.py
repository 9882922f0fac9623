"""Why a field of an object that is not as it should be matters, in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, Final

from agentvault_tui.model.finding import Finding, Level
from agentvault_tui.text import visible
from agentvault_tui.vault.provision.plan import PlanItem
from agentvault_tui.vault.provision.rules import MISSING, FieldChange
from agentvault_tui.vault.urns import DEVICE_GRANT, VAULT_GRANT

APPLY: Final = "agentvault auth0 apply"
_Say = Callable[[FieldChange], str]


def reason(item: PlanItem, change: FieldChange) -> Finding:
    """Return the finding for one field of an object that stands."""
    for address, path, level, say in _REASONS:
        if fnmatchcase(item.address, address) and fnmatchcase(change.path, path):
            what = say if isinstance(say, str) else say(change)
            return Finding(level, f"{_whose(item)} {what}", APPLY)
    before, after = _short(change.before), _short(change.after)
    what = f"{_whose(item)} has {change.path} {before}, and should have {after}"
    return Finding(Level.FAULT, what, APPLY)


def _whose(item: PlanItem) -> str:
    title = f" ({visible(item.title, 60)})" if item.title else ""
    return f"{item.address}{title}"


def _short(value: Any) -> str:
    return "nothing" if value is MISSING else visible(value, 80)


def _lost(change: FieldChange) -> list[Any]:
    before = change.before if isinstance(change.before, list) else []
    after = change.after if isinstance(change.after, list) else []
    return [one for one in after if one not in before]


def _too_much(change: FieldChange) -> list[str]:
    before = change.before if isinstance(change.before, list) else []
    return [_short(one) for one in before if one not in change.after]


def _console_grants(change: FieldChange) -> str:
    if DEVICE_GRANT in _lost(change):
        return "lacks the Device Code grant: no sign-in and no step-up can start"
    return f"may use {', '.join(_too_much(change))}, which the console has no use for"


def _vault_grants(change: FieldChange) -> str:
    lost = _lost(change)
    if VAULT_GRANT in lost:
        return "lacks the Token Vault grant: each exchange is unauthorized_client"
    if lost:
        return f"lacks the grants {', '.join(map(_short, lost))}"
    return f"may use {', '.join(_too_much(change))}, which an agent has no use for"


def _clients(change: FieldChange) -> str:
    if lost := _lost(change):
        return f"is not enabled for {len(lost)} of our applications"
    return (
        f"is enabled for {len(_too_much(change))} of our applications that have no "
        "business with it: people may sign in, or accounts be used, by it"
    )


def _policy(change: FieldChange) -> str:
    if change.before == ["all-applications"]:
        return "is Always: every Token Vault exchange fails for want of a second factor"
    return f"is {_short(change.before)}: an exchange may be asked for a second factor"


_ROTATION: Final = (
    "has refresh token rotation on: the first exchange spends the token, and Token "
    "Vault refuses such a client"
)
_MRRT: Final = (
    "has no refresh token policy for the My Account API: no account can be connected "
    "for it"
)
_NO_DEVICE: Final = ": it gets no device flow"
_F, _W = Level.FAULT, Level.WARNING
_REASONS: Final[tuple[tuple[str, str, Level, str | _Say], ...]] = (
    ("client.console", "app_type", _F, f"is not native{_NO_DEVICE}"),
    (
        "client.console",
        "token_endpoint_auth_method",
        _F,
        "has a secret: Auth0 gives the device flow to public clients alone",
    ),
    ("client.console", "grant_types", _F, _console_grants),
    ("client.console", "is_first_party", _F, f"is not first-party{_NO_DEVICE}"),
    ("client.console", "oidc_conformant", _F, f"is not OIDC conformant{_NO_DEVICE}"),
    (
        "client.management",
        "token_endpoint_auth_method",
        _F,
        "takes no secret: the broker can neither revoke there nor read the log",
    ),
    (
        "client.*",
        "token_endpoint_auth_method",
        _F,
        "is not confidential by client_secret_post: Token Vault refuses public ones",
    ),
    ("client.*", "is_first_party", _F, "is not first-party: Token Vault refuses it"),
    ("client.*", "oidc_conformant", _F, "is not OIDC conformant: Token Vault wants it"),
    ("client.agents/*", "grant_types", _F, _vault_grants),
    ("client.*", "refresh_token.rotation_type", _F, _ROTATION),
    ("client.*", "refresh_token.policies", _F, _MRRT),
    ("client.*", "known", _F, "is not known in this home: no sign-in goes by it"),
    ("client.*", "kept", _F, "has a secret that is not in this home"),
    ("client.*", "worker_key", _F, "has a worker's key that is not in this home"),
    ("client.*", "name", _W, "goes by another name"),
    ("client.*", "client_metadata.*", _F, "lacks our mark: the Actions pass it by"),
    (
        "connection.*",
        "connected_accounts.active",
        _F,
        "is not active for connected accounts: nothing of it gets into Token Vault",
    ),
    ("connection.*", "clients", _F, _clients),
    ("action.*", "deployed_code", _F, "is not deployed as it ships"),
    ("action.*", "code", _F, "has other code than ships: edited there, or older"),
    (
        "flow.*",
        "bindings",
        _F,
        "does not run our Actions one after the other: no fresh factor is proved",
    ),
    (
        "settings.*",
        "flags.enable_client_connections",
        _F,
        "is on: each new application of ours gets every connection of the tenant",
    ),
    ("factor.otp", "enabled", _F, "is off"),
    ("factor.*", "enabled", _W, "is off: nobody can approve with a security key"),
    (
        "settings.*",
        "customize_mfa_in_postlogin_action",
        _F,
        "is off: the Actions cannot ask for a second factor",
    ),
    ("policy.mfa", "policies", _F, _policy),
)


def missing(item: PlanItem, misfiled: str) -> Finding:
    """Return the finding for an object that does not stand at all."""
    if misfiled:
        return Finding(
            Level.FAULT,
            f"{_whose(item)} stands for subject_type {visible(misfiled, 20)} instead: "
            "nobody gets a token through it",
            "delete it in the Dashboard, under the API's Application Access; then "
            + APPLY,
        )
    return Finding(Level.FAULT, f"{_whose(item)} is missing", APPLY)


def all_reasons(item: PlanItem) -> Iterator[Finding]:
    """Yield a finding for each field of *item* that is not as it should be."""
    for change in item.changes:
        yield reason(item, change)
