"""A passkey is registered by a link that its person opens, once and in time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.authenticator import UP, Authenticator
from tenant.test_approve import Stand, lie, stand, stands

from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.registration import RegistrationPages
from agentvault_tui.tenant.users import User

__all__ = ["stand", "stands"]


def test_a_link_registers_one_passkey_within_ten_minutes(stand: Stand) -> None:
    """Used twice, late, or after a newer link or its person's removal: nothing."""
    older = stand.tenant.users.invite_passkey(stand.alice.user)
    token = stand.tenant.users.invite_passkey(stand.alice.user)
    assert stand.phone.open(f"passkey/{older}").error == "code_over"
    stand.phone.open(f"passkey/{token}")
    options, form = stand.phone.options("create"), stand.phone.answer
    first = Authenticator(stand.url)
    stand.phone.send("create", credential=first.create(options))
    stand.phone.answer = form
    second = Authenticator(stand.url).create(options)
    assert stand.phone.send("create", credential=second).error == "code_over"
    late = stand.tenant.users.invite_passkey(stand.alice.user)
    stand.tenant.clock.advance(601)
    assert stand.phone.open(f"passkey/{late}").error == "code_over"
    gone = stand.tenant.users.invite_passkey(stand.alice.user)
    stand.tenant.users.remove("alice@acme.test")
    assert stand.phone.open(f"passkey/{gone}").error == "code_over"
    assert stand.tenant.users.passkeys() == []


def test_a_link_that_another_broker_used_meanwhile_registers_nothing(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found it there; of two that use it at once one does."""
    token = stand.tenant.users.invite_passkey(stand.alice.user)
    stand.phone.open(f"passkey/{token}")
    key, found = Authenticator(stand.url), RegistrationPages._user

    def used_by_another(pages: RegistrationPages, token: str) -> User | None:
        user = found(pages, token)
        pages._parts.store.delete("passkey_links", link_hash=sha256_hex(token))
        return user

    monkeypatch.setattr(RegistrationPages, "_user", used_by_another)
    answer = key.create(stand.phone.options("create"))
    assert stand.phone.send("create", credential=answer).error == "code_over"
    assert stand.tenant.users.passkeys() == []


@pytest.mark.parametrize("change", [lie(rp_id="evil.example"), lie(flags=UP)])
def test_a_bad_registration_keeps_the_link(
    stand: Stand, change: Callable[[Authenticator], None]
) -> None:
    """Another RP id or no user verification registers nothing."""
    token = stand.tenant.users.invite_passkey(stand.alice.user)
    stand.phone.open(f"passkey/{token}")
    key = Authenticator(stand.url)
    change(key)
    answer = key.create(stand.phone.options("create"))
    assert stand.phone.send("create", credential=answer).error == "bad_passkey"
    assert stand.phone.open(f"passkey/{token}").step == "passkey"
