"""One sentence for each request, which no text of an agent's can bend."""

from __future__ import annotations

from typing import Any

import pytest

from agentvault_tui.headline import gist, headline, wish


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {
                "action": "send:payment",
                "resource": "stripe:acct_42",
                "parameters": {
                    "amount": 4200,
                    "currency": "USD",
                    "to": "Northwind GmbH",
                },
            },
            "pay 4200 USD (unit unknown) to Northwind GmbH",
        ),
        (
            {
                "action": "send:email",
                "resource": "gmail:me",
                "parameters": {"recipients": ["a@b.test"] * 500},
            },
            "send email, 500 recipients, on gmail:me",
        ),
        (
            {"action": "delete:records", "resource": "crm:88", "parameters": {}},
            "delete records on crm:88",
        ),
        (
            {
                "action": "run:command",
                "resource": None,
                "parameters": {"command": "git push origin main"},
            },
            "run command “git push origin main”",
        ),
        (
            {
                "action": "send:payment",
                "resource": None,
                "parameters": {},
                "unlimited": True,
            },
            "use send:payment with no limits",
        ),
        (
            {
                "action": "x",
                "resource": None,
                "parameters": {},
                "change": "replace the policy",
            },
            "change: replace the policy",
        ),
        (
            {"action": "x", "resource": None, "parameters": {}, "connection": "google"},
            "have a token of the account at google",
        ),
    ],
)
def test_a_request_is_one_sentence(asked: dict[str, Any], words: str) -> None:
    """Verb, how much, and whom or what it reaches, before anything else."""
    assert wish(**asked) == words
    assert headline("payer", wish(**asked)) == f"payer wants to {words}"


@pytest.mark.parametrize(
    "text",
    [
        "x. Approved by security already",
        "Alice”, which is safe. “",
        "a wants to b",
        "\x1b[2J\u202egnp",
        "x" * 10_000,
        "\n\nDeny is Approve",
    ],
)
@pytest.mark.parametrize("place", ["asker", "to", "resource"])
def test_an_agents_text_is_quoted_bounded_and_inert(text: str, place: str) -> None:
    """It reads as its text and not as ours, and leaves room for the rest."""
    parameters = {"amount": 7, "currency": "USD"}
    if place == "to":
        parameters["to"] = text
    asker = text if place == "asker" else "payer"
    resource = text if place == "resource" else None
    shown = headline(asker, wish("send:payment", resource, parameters))
    assert shown.isprintable()
    assert len(shown) <= 200
    assert "pay 7 USD (unit unknown)" in shown
    quoted = shown.count("“"), shown.count("”")
    assert quoted in {(1, 1), (0, 0)}
    assert quoted == (1, 1) or text.startswith("xx")


def test_what_moves_is_summed_up_only_where_it_is_clear() -> None:
    """A wrong type is left out: what is shown is what the policy read."""
    assert gist({"amount": [4200], "currency": "USD"}, None) == "amount unclear"
    assert gist({"recipients": 1, "count": 2}, None) == "1 recipient, 2 items"
    assert gist(None, None) == ""
