"""Two factors: wrong ones, replayed ones, too many, and what an answer gives away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
from argon2 import PasswordHasher
from support.tenant_thread import START, TenantThread

from agentvault_tui.clock import ManualClock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.home import Home
from agentvault_tui.tenant.device_page_client import Activation
from agentvault_tui.tenant.sealing import Seal
from agentvault_tui.tenant.signin import SignIn
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.users import NewUser, UserStore


def refused(tenant: TenantThread, name: str, password: str) -> TenantRefusedError:
    """Fail to sign in with a code of its own."""
    with Activation() as pages:
        pages.open(tenant.issuer, tenant.flow()["user_code"])
        with pytest.raises(TenantRefusedError) as error:
            pages.sign_in(name, password)
    return error.value


def wrong_otp(tenant: TenantThread, user: NewUser, otp: str) -> str:
    """Send *otp* for a code of its own and return the page's error code."""
    with Activation() as pages:
        pages.open(tenant.issuer, tenant.flow()["user_code"])
        pages.sign_in(user.user.name, user.password)
        try:
            pages.one_time_code(otp)
        except TenantRefusedError as error:
            return error.error
    return "accepted"


def test_unknown_users_and_wrong_passwords_sound_alike(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Neither words nor lock-out tell whether there is such a user."""
    for _ in range(5):
        known = refused(tenant, "alice@acme.test", "wrong")
        unknown = refused(tenant, "mallory", "wrong")
        assert known.error == unknown.error == "wrong_sign_in"
        assert known.what == unknown.what
    known = refused(tenant, "alice@acme.test", alice.password)
    unknown = refused(tenant, "mallory", "wrong")
    assert known.error == unknown.error == "locked"
    assert (
        known.what == unknown.what == "Too many tries. Wait 30 seconds, then try again."
    )


class Spy(PasswordHasher):
    """Checks for real, and remembers against what."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.checked: list[str] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - argon2's name
        self.checked.append(str(hash))
        return super().verify(hash, password)


async def test_unknown_users_cost_as_much(home: Home) -> None:
    """A stranger's password is checked too, against a hash of the same cost (T-16)."""
    clock, spy = ManualClock(START), Spy()
    with UserStore(home, clock=clock, hasher=spy) as users:
        users.add("ann", approver=True)
    store = Store(home, checkpoints=True)
    sign_in = SignIn(store, Seal.of(home), clock, spy)
    for name in ("ann", "nobody"):
        with pytest.raises(TenantRefusedError, match="not right"):
            await sign_in.password(name, "wrong")
    store.close()
    known, unknown = (checked.rsplit("$", 2)[0] for checked in spy.checked)
    assert known == unknown == "$argon2id$v=19$m=8,t=1,p=1"


def test_the_lock_grows_and_ends(tenant: TenantThread, alice: NewUser) -> None:
    """Each failure after the fifth locks longer, to a cap; a right one clears it."""
    waits = []
    for _ in range(5):
        refused(tenant, "alice@acme.test", "wrong")
    for _ in range(3):
        locked = refused(tenant, "alice@acme.test", alice.password)
        assert locked.error == "locked"
        wait = int("".join(filter(str.isdigit, locked.what)))
        waits.append(wait)
        tenant.clock.advance(wait)
        assert refused(tenant, "alice@acme.test", "wrong").error == "wrong_sign_in"
    assert waits == [30, 60, 60]
    tenant.clock.advance(60)
    assert wrong_otp(tenant, alice, tenant.otp(alice)) == "accepted"
    assert refused(tenant, "alice@acme.test", "wrong").error == "wrong_sign_in"
    assert wrong_otp(tenant, alice, "") == "wrong_otp"


def test_one_time_codes_lock_longer(tenant: TenantThread, alice: NewUser) -> None:
    """Guessing the short factor soon costs a quarter of an hour a try."""
    for _ in range(5):
        assert wrong_otp(tenant, alice, "000000") == "wrong_otp"
    for wait in (30, 60, 120, 240, 480, 900, 900):
        assert wrong_otp(tenant, alice, "000000") == "locked"
        tenant.clock.advance(wait - 1)
        assert wrong_otp(tenant, alice, "000000") == "locked"
        tenant.clock.advance(1)
        assert wrong_otp(tenant, alice, "000000") == "wrong_otp"


def test_a_lock_survives_a_restart(tenant: TenantThread, alice: NewUser) -> None:
    """Killing the process does not give new tries."""
    for _ in range(5):
        refused(tenant, "alice@acme.test", "wrong")
    tenant.restart()
    assert refused(tenant, "alice@acme.test", alice.password).error == "locked"


def test_setting_the_clock_back_does_not_lock_for_years(
    tenant: TenantThread, alice: NewUser
) -> None:
    """A lock never lasts longer than the longest one."""
    for _ in range(5):
        refused(tenant, "alice@acme.test", "wrong")
    tenant.clock.jump_wall(-365 * 86_400)
    locked = refused(tenant, "alice@acme.test", alice.password)
    assert "Wait 60 seconds" in locked.what


def test_parallel_guesses_all_count(tenant: TenantThread, alice: NewUser) -> None:
    """Of twenty guesses at once five are looked at."""
    starts = []
    for _ in range(20):
        pages = Activation()
        pages.open(tenant.issuer, tenant.flow()["user_code"])
        starts.append(pages)

    def guess(pages: Activation) -> str:
        with pages, pytest.raises(TenantRefusedError) as error:
            pages.sign_in("alice@acme.test", "wrong")
        return error.value.error

    with ThreadPoolExecutor(20) as pool:
        errors = list(pool.map(guess, starts))
    assert errors.count("wrong_sign_in") == 5
    assert set(errors) <= {"wrong_sign_in", "locked", "busy"}


def test_five_failures_end_the_code(tenant: TenantThread, alice: NewUser) -> None:
    """A code is void after five failed factors, and the device is told why."""
    flow = tenant.flow()
    bob = tenant.users.add("bob", approver=True)
    with Activation() as pages:
        pages.open(tenant.issuer, flow["user_code"])
        for name in ("alice@acme.test", "bob", "x", "y"):
            with pytest.raises(TenantRefusedError):
                pages.sign_in(name, "wrong")
        pages.sign_in("bob", bob.password)
        with pytest.raises(TenantRefusedError) as over:
            pages.one_time_code("000000")
    assert over.value.error == "code_over"
    answer = tenant.poll(flow)
    assert answer.status_code == 403
    assert answer.json() == {
        "error": "access_denied",
        "error_description": "Too many failed sign-ins.",
    }


def test_a_one_time_code_works_once(tenant: TenantThread, alice: NewUser) -> None:
    """A code seen over the shoulder is no good, nor is an older one after it."""
    older, code = tenant.otp(alice, -1), tenant.otp(alice)
    assert wrong_otp(tenant, alice, f"{code[:3]} {code[3:]}") == "accepted"
    assert wrong_otp(tenant, alice, code) == "wrong_otp"
    assert wrong_otp(tenant, alice, older) == "wrong_otp"
    tenant.restart()
    assert wrong_otp(tenant, alice, code) == "wrong_otp"
    tenant.clock.advance(30)
    assert wrong_otp(tenant, alice, tenant.otp(alice)) == "accepted"


def test_of_two_with_the_same_one_time_code_one_gets_in(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Replay at the very same moment is replay."""
    code, pairs = tenant.otp(alice), []
    for _ in range(4):
        pages = Activation()
        pages.open(tenant.issuer, tenant.flow()["user_code"])
        pages.sign_in("alice@acme.test", alice.password)
        pairs.append(pages)

    def send(pages: Activation) -> str:
        with pages:
            try:
                pages.one_time_code(code)
            except TenantRefusedError as error:
                return error.error
            return "accepted"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(send, pairs)) == ["accepted"] + ["wrong_otp"] * 3


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(-2, "wrong_otp"), (-1, "accepted"), (1, "accepted"), (2, "wrong_otp")],
)
def test_one_step_of_clock_drift_is_forgiven(
    tenant: TenantThread, alice: NewUser, steps: int, expected: str
) -> None:
    """RFC 6238 section 5.2: one time step either way, not two."""
    assert wrong_otp(tenant, alice, tenant.otp(alice, steps)) == expected


@pytest.mark.parametrize(
    "otp", ["", "12345", "１２３４５６", "-00001", "abcdef", "0" * 9]
)
def test_what_is_no_one_time_code(
    tenant: TenantThread, alice: NewUser, otp: str
) -> None:
    """Anything but six ASCII digits is wrong, and nothing breaks."""
    assert wrong_otp(tenant, alice, otp) == "wrong_otp"


def test_resetting_ends_the_old_secret_and_the_lock(
    tenant: TenantThread, alice: NewUser
) -> None:
    """After a reset the old app's codes are wrong and the new one's are right."""
    for _ in range(5):
        wrong_otp(tenant, alice, "000000")
    old = tenant.otp(alice)
    secret, _ = tenant.users.reset_otp("Alice@acme.test")
    fresh = NewUser(alice.user, alice.password, secret, "")
    assert wrong_otp(tenant, alice, old) == "wrong_otp"
    assert wrong_otp(tenant, fresh, tenant.otp(fresh)) == "accepted"
