"""A service's file says how amounts are written, and each request has its unit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.service_requests import FORM, JSON, action_of

from agentvault_tui.amounts import render_amount
from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway import Service
from agentvault_tui.gateway.shipped import shipped_file
from agentvault_tui.model import Money
from agentvault_tui.policy.facts import derive

Parse = Callable[[str], Service]
ROUTE = '[[routes]]\nmethod = "POST"\npath = "/pay"\nscope = "send:payment"\n'
PLACES = '[money]\namount = "body:/amount"\ncurrency = "body:/currency"\n'
BODY = b'{"amount": 4200, "sum": 7, "other": 9, "currency": "USD", "coin": "JPY"}'


@pytest.mark.parametrize(
    ("money", "route", "amount", "currency"),
    [
        ('amount = "body:/amount"\ncurrency = "body:/currency"', "", 4200, "USD"),
        ('amount = "body:/amount"', 'parameters = { amount = "body:/sum" }', 7, None),
        (
            'amount = "body:/amount"\ncurrency = "body:/currency"',
            'parameters = { amount = "body:/sum" }\nmoney = { amount = "body:/other" }',
            *(9, "USD"),
        ),
        (
            'currency = "body:/currency"',
            'money = { amount = "body:/sum", currency = "body:/coin" }',
            *(7, "JPY"),
        ),
        ("", "", None, None),
        ('unit = "minor"', "", None, None),
    ],
)
def test_the_most_specific_table_names_the_amount(
    parse: Parse, money: str, route: str, amount: int | None, currency: str | None
) -> None:
    """The route's own table, then its parameters, then the service's table."""
    service = parse(f"[money]\n{money}\n{ROUTE}{route}\n")
    read = action_of(service, "POST", "/pay", JSON, body=BODY).parameters
    assert (read.get("amount"), read.get("currency")) == (amount, currency)


@pytest.mark.parametrize(
    ("service", "route", "expected"),
    [
        ("", "", None),
        ('unit = "minor"', "", Money("minor", 2)),
        ('unit = "minor"', 'money = { unit = "major" }', Money("major", 2)),
        ("", 'money = { unit = "major" }', Money("major", 2)),
        ('unit = "minor"\nexponents = { USD = 3 }', "", Money("minor", 3)),
        (
            'unit = "minor"\nexponents = { USD = 3 }',
            "money = { exponents = { EUR = 0 } }",
            Money("minor", 2),
        ),
        ("exponents = { USD = 3 }", 'money = { unit = "major" }', Money("major", 3)),
    ],
)
def test_unit_and_exponents_come_from_the_most_specific_table(
    parse: Parse, service: str, route: str, expected: Money | None
) -> None:
    """Each by itself: a route may differ in one and inherit the other."""
    places = 'amount = "body:/amount"\ncurrency = "body:/currency"\n'
    parsed = parse(f"[money]\n{places}{service}\n{ROUTE}{route}\n")
    assert action_of(parsed, "POST", "/pay", JSON, body=BODY).money == expected


def test_a_route_whose_body_is_not_read_has_no_amount_of_the_service(
    parse: Parse,
) -> None:
    """The service's table is for routes that can have an amount."""
    money = '[money]\namount = "body:/amount"\nunit = "minor"\n'
    opaque = 'body = "opaque"\ntypes = ["image/png"]\n'
    service = parse(money + ROUTE + opaque)
    read = action_of(
        service, "POST", "/pay", (b"content-type", b"image/png"), body=b"x"
    )
    assert (read.parameters, read.money) == ({}, None)
    with pytest.raises(ServiceError, match="read from the body, which is opaque"):
        parse(ROUTE + opaque + 'money = { amount = "body:/amount" }')


@pytest.mark.parametrize(
    ("money", "says"),
    [
        ('unit = "cents"', "Invalid enum value"),
        ("unit = 2", "got `int`"),
        ('amuont = "body:/amount"', "did you mean amount"),
        ('amount = "amount"', "money.amount is read from 'amount': nowhere"),
        ('amount = "count:body:/amount"', "money.amount is a count"),
        ('amount = "path:account"', "nowhere"),
        ('currency = "domains:body:/to"', "nowhere"),
        ("amount = 5", "Expected `str | null`"),
        ("exponents = { usd = 2 }", "the exponent of usd is 2"),
        ("exponents = { USD = 5 }", "the exponent of USD is 5"),
        ("exponents = { USD = -1 }", "the exponent of USD is -1"),
        ("exponents = { USD = 2.0 }", "got `float`"),
        ('exponents = { USD = "2" }', "Expected `int`"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(
    parse: Parse, money: str, says: str
) -> None:
    """On the service and on a route, with what is wrong."""
    with pytest.raises(ServiceError) as raised:
        parse(f"[money]\n{money}\n{ROUTE}")
    assert says in raised.value.diagnosis()
    with pytest.raises(ServiceError) as raised:
        parse(f"{ROUTE}[routes.money]\n{money}")
    assert says in raised.value.diagnosis()


@pytest.mark.parametrize(
    ("unit", "written", "text"),
    [
        ("minor", b"4200", "42.00 USD (4200 minor units)"),
        ("major", b"42", "42.00 USD (4200 minor units)"),
        ("major", b"1.50", "1.50 USD (150 minor units)"),
        ("major", b"1.5", "1.50 USD (150 minor units)"),
        ("major", b'"1.50"', "1.50 USD (150 minor units)"),
        ("major", b"0.1", "0.10 USD (10 minor units)"),
        ("minor", b"1.50", "1.50 USD, unit unknown"),
        ("minor", b"4200.0", "4200.0 USD, unit unknown"),
        ("major", b"1.505", "1.505 USD, unit unknown"),
        ("major", b"1.50e0", '"1.50e0" (no number that can be read)'),
        ("major", b"42E2", '"42E2" (no number that can be read)'),
        ("major", b"-1.50", '"-1.50" (no number that can be read)'),
        ("minor", b"-4200", "-4200 USD, unit unknown"),
        ("minor", b"-0", '"-0" (no number that can be read)'),
        ("minor", b"true", "true (no number that can be read)"),
        ("minor", b"null", "amount unclear"),
        (
            "major",
            b'{"value": "42.00"}',
            '{"value": "42.00"} (no number that can be read)',
        ),
        ("minor", b'"4200"', "4200 USD, unit unknown"),
        (
            "minor",
            b'"42.00 USD (4200 minor units)"',
            '"42.00 USD (4200 minor units)" (no number that can be read)',
        ),
    ],
)
def test_an_amount_of_json_has_its_digits(
    parse: Parse, unit: str, written: bytes, text: str
) -> None:
    """No float is made of it; what is not surely an amount is unclear for policy."""
    money = PLACES + f'unit = "{unit}"\n'
    body = b'{"amount": %b, "currency": "usd"}' % written
    action = action_of(parse(money + ROUTE), "POST", "/pay", JSON, body=body)
    assert render_amount(action.parameters, action.money) == text
    facts = derive(action)
    assert (facts.amount_major is None) is ("minor units)" not in text or '"' in text)
    assert bool(facts.unclear) is (facts.amount_major is None)


@pytest.mark.parametrize(
    ("unit", "written", "major"),
    [
        *(
            ("minor", b"4200", "42.00"),
            ("major", b"42.5", "42.50"),
            ("major", b"7", "7.00"),
        ),
        *(("minor", b"42.00", None), ("minor", b"0x10", None), ("major", b"1e3", None)),
        *(("major", b"NaN", None), ("major", b"", None), ("major", b"4+2", None)),
    ],
)
def test_an_amount_of_a_form_is_text(
    parse: Parse, unit: str, written: bytes, major: str | None
) -> None:
    """A whole number is one, and digits with a point are an amount in major units."""
    money = PLACES + f'unit = "{unit}"\n'
    body = b"currency=usd&amount=" + written
    action = action_of(parse(money + ROUTE), "POST", "/pay", FORM, body=body)
    found = derive(action).amount_major
    assert (found is None) if major is None else str(found) == major


@pytest.mark.parametrize(
    ("currency", "text"),
    [
        ("usd", "42.00 USD (4200 minor units)"),
        ("jpy", "4200 JPY (4200 minor units)"),
        ("kwd", "4.200 KWD (4200 minor units)"),
        ("isk", "42.00 ISK (4200 minor units)"),
        ("ugx", "42.00 UGX (4200 minor units)"),
        ("mga", "4200 MGA (4200 minor units)"),
        ("xyz", "4200 XYZ, unit unknown"),
    ],
)
def test_the_shipped_stripe_file_says_minor(
    parse: Parse, currency: str, text: str
) -> None:
    """With the three currencies in which Stripe differs from ISO 4217."""
    _, _, rest = shipped_file("stripe", None).partition("[credential]")
    service = parse("[credential]" + rest)
    body = f"amount=4200&currency={currency}&destination=acct_1".encode()
    action = action_of(service, "POST", "/v1/transfers", FORM, body=body)
    assert render_amount(action.parameters, action.money) == text
