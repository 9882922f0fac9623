"""Two factors: wrong ones, replayed ones, too many, and what an answer gives away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Literal

import httpx
import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from auth0_double.running import START, TenantThread
from starlette.responses import Response
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.tenant_admin import CALLBACK, Admin
from support.tenant_store import open_store, open_users, seal_of

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.home import Home
from agentvault_tui.tenant.device_page_client import (
    Activation,
    Form,
    TenantPage,
    read_page,
)
from agentvault_tui.tenant.signin import (
    Lane,
    Lanes,
    Lockouts,
    Origin,
    SignIn,
    Turns,
    _of_no_password,
    proof_of,
)
from agentvault_tui.tenant.users import NewUser, strong_hasher


def login_form(tenant: TenantThread, browser: httpx.Client) -> Form:
    """Open the sign-in page that an application sends its people to."""
    client = Admin(tenant).client()
    query = {"client_id": client["client_id"], "redirect_uri": CALLBACK}
    answer = browser.get("authorize", params={**query, "response_type": "code"})
    return read_page(answer.text).forms["login"]


def sign_in(tenant: TenantThread, name: str, password: str) -> TenantPage:
    """Send a password as any process of this user can, by a client's sign-in page."""
    with httpx.Client(base_url=tenant.issuer, trust_env=False) as browser:
        form = login_form(tenant, browser)
        data = {**form.fields, "user": name, "password": password}
        return read_page(browser.post(form.action, data=data, timeout=PATIENT).text)


def refused(tenant: TenantThread, name: str, password: str) -> TenantPage:
    """Fail to sign in with nothing but a name and a password."""
    page = sign_in(tenant, name, password)
    assert page.error
    return page


def with_code(
    tenant: TenantThread,
    user: NewUser,
    *,
    prove: Callable[[str], str] | None = None,
    cookies: httpx.Cookies | None = None,
) -> httpx.Cookies:
    """Sign in for a code of the console's; return the browser's cookies."""
    with Activation(prove=prove) as pages:
        pages._http.cookies.update(cookies or {})
        pages.open(tenant.issuer, tenant.flow()["user_code"])
        pages.sign_in(user.user.name, user.password)
        pages.one_time_code(tenant.otp(user))
        pages.confirm()
        return pages._http.cookies


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


@pytest.mark.slow
def test_unknown_users_and_wrong_passwords_look_the_same(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Neither words nor lock-out tell whether there is such a user."""
    for _ in range(5):
        known = refused(tenant, "alice@acme.test", "wrong")
        unknown = refused(tenant, "mallory", "wrong")
        assert known.error == unknown.error == "wrong_sign_in"
        assert known.message == unknown.message
    known = refused(tenant, "alice@acme.test", alice.password)
    unknown = refused(tenant, "mallory", "wrong")
    assert known.error == unknown.error == "locked"
    wait = "Too many tries. Wait 30 seconds, then try again."
    assert known.message == unknown.message == wait


@pytest.mark.slow
def test_nobody_is_locked_out_by_name(tenant: TenantThread, alice: NewUser) -> None:
    """Others' wrong tries count neither for a code, a known browser, nor the owner."""
    cookies = with_code(tenant, alice)
    tenant.clock.advance(30)
    for _ in range(6):
        locked = refused(tenant, "alice@acme.test", "wrong")
    assert locked.error == "locked"
    with_code(tenant, alice)
    tenant.clock.advance(30)
    seal = seal_of(tenant.home)
    with_code(tenant, alice, prove=lambda code: proof_of(seal, code))
    with httpx.Client(
        base_url=tenant.issuer, trust_env=False, cookies=cookies
    ) as browser:
        form = login_form(tenant, browser)
        data = {"user": "alice@acme.test", "password": alice.password}
        page = read_page(browser.post(form.action, data=form.fields | data).text)
    assert not page.error
    assert page.step == "consent"


@pytest.mark.slow
def test_wrong_passwords_of_a_known_browser_are_limited(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Its cookie is good for tries of its own, of which five are free."""
    cookies = with_code(tenant, alice)
    errors = []
    for _ in range(6):
        with httpx.Client(
            base_url=tenant.issuer, trust_env=False, cookies=cookies
        ) as browser:
            form = login_form(tenant, browser)
            data = {"user": "alice@acme.test", "password": "wrong"}
            page = read_page(browser.post(form.action, data=form.fields | data).text)
            errors.append(page.error)
    assert errors == ["wrong_sign_in"] * 5 + ["locked"]
    assert sign_in(tenant, "alice@acme.test", alice.password).step == "consent"


@pytest.fixture
def lanes(home: Home) -> Lanes:
    return Lanes(seal_of(home), ManualClock(START))


def kept(lanes: Lanes, sub: str, uid: int | None) -> dict[str, str]:
    """Return the cookie a browser is given after both factors."""
    answer = Response()
    lanes.remember(answer, Origin(uid), sub)
    cookie = SimpleCookie(answer.headers["set-cookie"])
    return {name: morsel.value for name, morsel in cookie.items()}


def test_a_known_browsers_cookie_is_for_one_person_and_user(
    lanes: Lanes, home: Home
) -> None:
    """The tenant's signature, for that person, that user's processes, and a while."""
    cookies = kept(lanes, "ann", 1000)
    known = lanes.lane(Origin(1000, cookies), "ann")
    assert (known.key[:8], known.trusted) == ("browser-", True)
    assert lanes.lane(Origin(1000, kept(lanes, "ann", 1000)), "ann") == known
    (name,), (value,) = cookies.keys(), cookies.values()
    (other,) = kept(lanes, "bob", 1000)
    late = ManualClock(START + timedelta(days=90))
    early = ManualClock(START - timedelta(seconds=1))
    for at, origin, who in (
        (lanes, Origin(1001, cookies), "ann"),
        (lanes, Origin(1000, {other: value}), "bob"),
        (lanes, Origin(1000, {name: value[:-1] + "x"}), "ann"),
        (lanes, Origin(1000, {name: value.replace(".", ".9", 1)}), "ann"),
        (Lanes(seal_of(home), late), Origin(1000, cookies), "ann"),
        (Lanes(seal_of(home), early), Origin(1000, cookies), "ann"),
    ):
        assert at.lane(origin, who) == Lane(f"uid-{origin.uid}", trusted=False)


def test_sign_ins_are_counted_by_the_user_whose_process_asks(lanes: Lanes) -> None:
    """One user's processes; where nobody tells whose, no name is locked."""
    assert lanes.lane(Origin(7), "ann") != lanes.lane(Origin(8), "ann")
    assert lanes.lane(Origin(7), "ann") == lanes.lane(Origin(7), "bob")
    anyone = lanes.lane(Origin(), "ann")
    assert (anyone.trusted, anyone.by_name) == (False, False)


async def test_waiting_sign_ins_take_turns_by_lane() -> None:
    """Checks go round the lanes, and one of two is kept for who has shown something."""
    turns, order, go = Turns(), list[str](), asyncio.Event()

    async def check(lane: Lane) -> None:
        async with turns.turn(lane):
            order.append(lane.key)
            await go.wait()

    stranger, other = Lane("uid-7", trusted=False), Lane("uid-8", trusted=False)
    known = Lane("browser-x", trusted=True)
    tasks = [asyncio.create_task(check(stranger)) for _ in range(65)]
    await asyncio.sleep(0)
    with pytest.raises(TenantRefusedError):
        turns.check_room(stranger)
    assert order == ["uid-7"]
    for lane in (other, known):
        turns.check_room(lane)
        tasks.append(asyncio.create_task(check(lane)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["uid-7", "browser-x"]
    go.set()
    await asyncio.gather(*tasks)
    assert order[2:4] == ["uid-7", "uid-8"]
    assert len(order) == 67


async def test_a_cancelled_sign_in_keeps_no_turn() -> None:
    """Whoever hangs up, before or while it is their turn, holds nobody up."""
    turns, lane = Turns(), Lane("uid-7", trusted=False)

    async def check() -> None:
        async with turns.turn(lane):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(check()) for _ in range(4)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(PATIENT), turns.turn(lane):
        assert turns._running == {True: 0, False: 1}
    assert (turns._running, turns._waiting) == ({True: 0, False: 0}, {})


class Spy(PasswordHasher):
    """Checks for real, and remembers against what."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.checked: list[str] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - argon2's name
        self.checked.append(str(hash))
        return super().verify(hash, password)


async def test_an_unknown_users_password_is_hashed_too(home: Home) -> None:
    """A stranger's password is checked too, against a hash of the same cost (T-16)."""
    clock, spy = ManualClock(START), Spy()
    with open_users(home, clock=clock, hasher=spy) as users:
        users.add("ann", approver=True)
    store = open_store(home)
    sign_in = SignIn(store, seal_of(home), clock, spy)
    for name in ("ann", "nobody"):
        with pytest.raises(TenantRefusedError, match="not right"):
            await sign_in.password(name, "wrong", Origin())
    store.close()
    known, unknown = (checked.rsplit("$", 2)[0] for checked in spy.checked)
    assert known == unknown == "$argon2id$v=19$m=8,t=1,p=1"


class Slow(PasswordHasher):
    """Holds a password that is right until it may say so."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.checks, self.goes_on = threading.Event(), threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - argon2's name
        right = super().verify(hash, password)
        self.checks.set()
        assert self.goes_on.wait(PATIENT)
        return right


@pytest.mark.parametrize("change", ["reset", "removed", "blocked"])
async def test_a_person_who_is_changed_while_a_password_waits_is_not_signed_in(
    home: Home, change: str
) -> None:
    """Whoever fills the line of sign-ins keeps no old password alive in it."""
    clock, slow = ManualClock(START), Slow()
    with open_users(home, clock=clock, hasher=slow) as users:
        ann = users.add("ann", approver=True)
        store = open_store(home)
        sign_in = SignIn(store, seal_of(home), clock, slow)
        trying = asyncio.create_task(sign_in.password("ann", ann.password, Origin()))
        assert await asyncio.to_thread(slow.checks.wait, PATIENT)
        match change:
            case "reset":
                users.reset_password("ann")
            case "removed":
                users.remove("ann")
            case _:
                store.update("users", {"blocked": 1}, sub=ann.user.sub)
        slow.goes_on.set()
        error = "blocked" if change == "blocked" else "wrong_sign_in"
        with pytest.raises(TenantRefusedError) as refused:
            await trying
        store.close()
    assert refused.value.error == error


def test_a_new_password_ends_a_sign_in_that_the_old_one_began(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Also where only the one-time code was still to come."""
    with Activation() as pages:
        pages.open(tenant.issuer, tenant.flow()["user_code"])
        pages.sign_in(alice.user.name, alice.password)
        tenant.users.reset_password(alice.user.name)
        with pytest.raises(TenantRefusedError, match="out of date"):
            pages.one_time_code(tenant.otp(alice))


@pytest.mark.slow
def test_a_clock_behind_that_of_the_try_before_locks_nobody(home: Home) -> None:
    """Brokers agree on the time but for some milliseconds; five tries are free."""
    store = open_store(home)
    late, early = ManualClock(START + timedelta(seconds=1)), ManualClock(START)
    clocks = (late, early, late, early, late)
    tries = [Lockouts(store, clock).charge("browser x", "code") for clock in clocks]
    assert tries == [0.0] * 5
    assert Lockouts(store, early).charge("browser x", "code") == 31.0
    store.close()


def test_a_password_lock_grows_and_ends(tenant: TenantThread, alice: NewUser) -> None:
    """Each failure after the fifth locks longer, to a cap; a right one clears it."""
    waits = []
    for _ in range(5):
        refused(tenant, "alice@acme.test", "wrong")
    for _ in range(3):
        locked = refused(tenant, "alice@acme.test", alice.password)
        assert locked.error == "locked"
        wait = int("".join(filter(str.isdigit, locked.message or "")))
        waits.append(wait)
        tenant.clock.advance(wait)
        assert refused(tenant, "alice@acme.test", "wrong").error == "wrong_sign_in"
    assert waits == [30, 60, 60]
    tenant.clock.advance(60)
    assert sign_in(tenant, "alice@acme.test", alice.password).step == "consent"
    for _ in range(5):
        assert refused(tenant, "alice@acme.test", "wrong").error == "wrong_sign_in"


@pytest.mark.slow
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
    assert "Wait 60 seconds" in (locked.message or "")


@pytest.mark.slow
def test_parallel_guesses_all_count(tenant: TenantThread, alice: NewUser) -> None:
    """Of twenty guesses at once five are looked at."""

    def guess(_: int) -> str | None:
        return refused(tenant, "alice@acme.test", "wrong").error

    with ThreadPoolExecutor(20) as pool:
        errors = list(pool.map(guess, range(20)))
    assert errors.count("wrong_sign_in") == 5
    assert set(errors) <= {"wrong_sign_in", "locked", "busy"}


def test_five_wrong_factors_end_a_device_code(
    tenant: TenantThread, alice: NewUser
) -> None:
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
    assert wrong_otp(tenant, alice, code) == "used_otp"
    assert wrong_otp(tenant, alice, older) == "used_otp"
    tenant.restart()
    assert wrong_otp(tenant, alice, code) == "used_otp"
    tenant.clock.advance(30)
    assert wrong_otp(tenant, alice, tenant.otp(alice)) == "accepted"


@pytest.mark.slow
def test_a_one_time_code_sent_twice_at_once_works_once(
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
        assert sorted(pool.map(send, pairs)) == ["accepted"] + ["used_otp"] * 3


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(-2, "wrong_otp"), (-1, "accepted"), (1, "accepted"), (2, "wrong_otp")],
)
def test_one_time_codes_may_be_one_step_off(
    tenant: TenantThread, alice: NewUser, steps: int, expected: str
) -> None:
    """RFC 6238 section 5.2: one time step either way, not two."""
    assert wrong_otp(tenant, alice, tenant.otp(alice, steps)) == expected


@pytest.mark.parametrize(
    "otp", ["", "12345", "１２３４５６", "-00001", "abcdef", "0" * 9]
)
def test_a_one_time_code_is_six_ascii_digits(
    tenant: TenantThread, alice: NewUser, otp: str
) -> None:
    """Anything but six ASCII digits is wrong, and nothing breaks."""
    assert wrong_otp(tenant, alice, otp) == "wrong_otp"


def test_resetting_one_time_codes_ends_the_old_secret_and_the_lock(
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


def test_the_unknown_users_hash_has_the_parameters_of_others() -> None:
    """Its hash has the parameters of all others, and no password has it."""
    hasher = strong_hasher()
    stored = _of_no_password(hasher)
    assert not hasher.check_needs_rehash(stored)
    with pytest.raises(VerifyMismatchError):
        hasher.verify(stored, "")
    assert _of_no_password(hasher) != stored
