"""``[money]`` of an MCP server's file: each call of a tool has its amount's unit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.mcp_stand import Client, McpStand

from agentvault_tui.amounts import render_amount
from agentvault_tui.broker.stepups import digest_of
from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.mcp import parse_server
from agentvault_tui.gateway.tools import parse_tools
from agentvault_tui.json_document import plain_numbers, read_document
from agentvault_tui.model import Action, Money
from agentvault_tui.policy import shipped_catalogue
from agentvault_tui.policy.facts import derive

COMMAND = 'command = ["bank"]\n'
MONEY = '[money]\namount = "/amount"\ncurrency = "/currency"\nunit = "{}"\n'
PAY = '[tools.pay]\nscope = "send:payment"\nresource = "bank:{to}"\n'


def action_of(text: str, arguments: bytes) -> Action:
    """Return the action of a call of ``pay`` with exactly these arguments."""
    server = parse_server("bank", COMMAND + text, shipped_catalogue(), Path("/"))
    rule = server.rule_of("pay")
    plain: Any = plain_numbers(read_document(arguments))
    return server.action_of(rule, "pay", plain, other=None, exact=arguments)


def shown(text: str, arguments: bytes) -> str:
    action = action_of(text, arguments)
    return render_amount(action.parameters, action.money)


@pytest.mark.parametrize(
    ("unit", "amount", "text"),
    [
        ("minor", b"4200", "42.00 USD (4200 minor units)"),
        ("major", b"42", "42.00 USD (4200 minor units)"),
        ("major", b"1.50", "1.50 USD (150 minor units)"),
        ("major", b'"1.50"', "1.50 USD (150 minor units)"),
        ("minor", b"1.50", "1.50 USD, unit unknown"),
        ("major", b"1.505", "1.505 USD, unit unknown"),
        ("major", b"1.5e0", '"1.5e0" (no number that can be read)'),
        ("minor", b"-0", '"-0" (no number that can be read)'),
    ],
)
def test_the_amount_of_a_tool_has_its_digits_and_its_unit(
    unit: str, amount: bytes, text: str
) -> None:
    """As for a service, no float is made of it; an inexact amount is unclear."""
    arguments = b'{"to": "a", "amount": %b, "currency": "usd"}' % amount
    assert shown(MONEY.format(unit) + PAY, arguments) == text
    facts = derive(action_of(MONEY.format(unit) + PAY, arguments))
    assert (facts.amount_major is None) is ("minor units)" not in text)
    assert bool(facts.unclear) is (facts.amount_major is None)


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ('money = { unit = "major" }', "7.00 USD (700 minor units)"),
        ('money = { amount = "/sum" }', "0.09 USD (9 minor units)"),
        ('parameters = { amount = "/sum" }', "0.09 USD (9 minor units)"),
        (
            'parameters = { amount = "/sum" }\nmoney = { amount = "/amount" }',
            "0.07 USD (7 minor units)",
        ),
        ("money = { exponents = { USD = 0 } }", "7 USD (7 minor units)"),
    ],
)
def test_the_table_of_a_tool_wins_over_the_files(tool: str, text: str) -> None:
    """Then come the tool's parameters, and then the table of the file."""
    arguments = b'{"to": "a", "amount": 7, "sum": 9, "currency": "USD"}'
    assert shown(MONEY.format("minor") + PAY + tool, arguments) == text


def test_without_a_table_the_unit_is_unknown() -> None:
    """The parameters stay as they were sent."""
    places = 'parameters = { amount = "/amount", currency = "/currency" }\n'
    action = action_of(PAY + places, b'{"to": "a", "amount": 7, "currency": "usd"}')
    assert (action.money, action.parameters["currency"]) == (None, "usd")


def test_a_tool_without_the_argument_states_no_amount() -> None:
    """The file's table is for all tools; most of them move no money."""
    action = action_of(MONEY.format("minor") + PAY, b'{"to": "a"}')
    assert (action.parameters, action.money) == ({}, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[money]\namount = "amount"\n' + PAY, "JSON Pointer, such as /amount"),
        ('[money]\namount = "count:/amount"\n' + PAY, "JSON Pointer, such as"),
        ('[money]\nunit = "cents"\n', "Invalid enum value 'cents'"),
        ("[money]\nexponents = { usd = 2 }\n", "three capital letters"),
        (PAY + "money = { exponents = { USD = 9 } }\n", "tools.pay: money"),
        ('[money]\nunits = "minor"\n', "did you mean unit"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(text: str, problem: str) -> None:
    """With the tool that has it."""
    with pytest.raises(ServiceError) as refused:
        parse_server("bank", COMMAND + text, shipped_catalogue(), Path("/"))
    assert problem in refused.value.diagnosis()


def test_the_map_of_a_host_has_the_same_table() -> None:
    """A server that the host itself reaches may move money, too."""
    maps = parse_tools("host", MONEY.format("minor") + PAY, shipped_catalogue())
    assert maps.rules[0].amounts.unit == "minor"


async def test_a_held_call_shows_its_amount_and_binds_its_unit(mcp: McpStand) -> None:
    """The person sees 42.00 USD, and the digest covers the unit."""
    await mcp.write(MONEY.format("major") + PAY)
    agent = await mcp.stand.agent("send:payment", "read:files")
    token = await mcp.stand.token(agent, "read:files")
    client = Client(mcp.stand, agent, token, modern=True)
    arguments = {"to": "acct_1", "amount": 42.5, "currency": "USD"}
    client.extra = {"prefer": "respond-async"}
    await client.send("tools/call", {"name": "pay", "arguments": arguments})
    (stepup,) = mcp.stand.gateway.broker.stepups.open()
    parameters = json.loads(stepup.parameters_json)
    assert render_amount(parameters, stepup.money) == "42.50 USD (4250 minor units)"
    assert stepup.money == Money("major", 2)
    assert digest_of(stepup) == stepup.digest
