"""Units of amounts of money, and exact amounts in major units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

MOST_DIGITS: Final = 4
"""Digits after the point of an amount; Cedar's decimal has no more."""
_MOST_UNITS: Final = 2**53
_MAJOR: Final = re.compile(r"(?:0|[1-9][0-9]{0,15})(?:\.([0-9]{1,4}))?")
_CODES: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: """AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN
    BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB
    EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS
    KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN
    MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD
    SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS
    UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG""",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
EXPONENTS: Final[dict[str, int]] = {
    code: exponent for exponent, codes in _CODES.items() for code in codes.split()
}
"""Digits of the minor unit, by currency: ISO 4217, list one of 2026-01-01.

Codes without a minor unit, such as XAU, are not in it.
"""


@dataclass(frozen=True, slots=True)
class Money:
    """How the amount of one request is written, as its service's file says."""

    unit: Literal["minor", "major"]
    exponent: int
    """Digits of the minor unit of the request's currency."""

    def __post_init__(self) -> None:
        """Refuse an invalid unit.

        Raises:
            ValueError: likewise.
        """
        is_known = type(self.exponent) is int and 0 <= self.exponent <= MOST_DIGITS
        if self.unit not in {"minor", "major"} or not is_known:
            raise ValueError("it is no unit of an amount")

    @classmethod
    def of(
        cls,
        unit: Literal["minor", "major"] | None,
        parameters: Mapping[str, Any],
        exponents: Mapping[str, int] = EXPONENTS,
    ) -> Money | None:
        """Return how the amount of a request is written.

        Args:
            unit: of the amount; None if it is unknown.
            parameters: of the request.
            exponents: of the currencies.

        Returns:
            None if unit or currency are unknown, or it states no amount.
        """
        currency = parameters.get("currency")
        if unit is None or "amount" not in parameters or not isinstance(currency, str):
            return None
        exponent = exponents.get(currency)
        return None if exponent is None else cls(unit, exponent)

    @classmethod
    def read(cls, value: object) -> Money | None:
        """Read the form that `written` writes; None for anything else.

        Args:
            value: a mapping, or an object with the members as attributes.
        """
        given: Mapping[str, Any] = (
            value
            if isinstance(value, Mapping)
            else {name: getattr(value, name, None) for name in ("unit", "exponent")}
        )
        try:
            return cls(given["unit"], given["exponent"])
        except (KeyError, TypeError, ValueError):  # a list has no hash
            return None

    @property
    def written(self) -> dict[str, Any]:
        """Return it as digests, events and the operators' API have it."""
        return {"unit": self.unit, "exponent": self.exponent}

    def in_major_units(self, amount: object) -> Decimal | None:
        """Return an amount in major units, with all digits of the minor unit.

        Args:
            amount: a whole number, or for major units also a text of digits with a
                point. No float: its digits are not those that were sent.

        Returns:
            the exact amount; None if *amount* is anything else, has more digits than
            the currency, or is too large.
        """
        if type(amount) is int and 0 <= amount < _MOST_UNITS:
            minor = self.unit == "minor"
            return (
                Decimal(amount).scaleb(-self.exponent) if minor else self._all(amount)
            )
        if self.unit == "minor" or not isinstance(amount, str):
            return None
        match = _MAJOR.fullmatch(amount)
        if match is None or len(match[1] or "") > self.exponent:
            return None
        return self._all(amount)

    def _all(self, amount: int | str) -> Decimal | None:
        """Return the amount with all digits, unless its minor units are too many."""
        whole = Decimal(amount)
        if whole.scaleb(self.exponent) >= _MOST_UNITS:
            return None
        return whole.quantize(Decimal(1).scaleb(-self.exponent))
