"""Registering an agent: its name is its own, and many agents cost no more than few."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.bench import Bench

from agentvault_tui.broker import registry
from agentvault_tui.broker.usecases import register
from agentvault_tui.broker.usecases.apply_entries import check_names
from agentvault_tui.broker.usecases.naming import check_rename
from agentvault_tui.broker.usecases.register import new_agent
from agentvault_tui.errors import ConflictError, UsageError
from agentvault_tui.lookalikes import fold_text
from agentvault_tui.operator_api.requests import AgentRequest


@pytest.mark.parametrize("twin", ["Payer", " payer", "ｐａｙｅｒ"])
async def test_a_name_that_looks_like_another_is_refused(
    bench: Bench, twin: str
) -> None:
    """Also after the agent that has it was loaded anew."""
    agent = await bench.agent("payer")
    bench.broker.registry.put_agent(agent)
    with pytest.raises(ConflictError):
        await bench.agent(twin)
    await bench.agent("payer-2")


async def test_registering_folds_no_name_but_the_new_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work of one registration does not grow with the agents there are."""
    folded: list[str] = []

    def counting(fold: Callable[[str], str]) -> Callable[[str], str]:
        def counted(name: str) -> str:
            folded.append(name)
            return fold(name)

        return counted

    for module in (register, registry):
        monkeypatch.setattr(module, "fold_text", counting(fold_text))
    for number in range(20):
        await bench.agent(f"agent-{number}")
    assert set(folded[-2:]) == {"agent-19"}
    assert len(folded) == 60


@pytest.mark.parametrize(
    "twin",
    ["Agent-One", "agent\u2011one", "\u0430gent-one", "ag\u0435nt - one", "ａgent-one"],
)
async def test_a_name_that_folds_to_another_is_refused(bench: Bench, twin: str) -> None:
    """At registration and in files: letters of other scripts look alike too."""
    await bench.agent("agent-one")
    with pytest.raises(ConflictError, match="looks alike"):
        await bench.agent(twin)
    with pytest.raises(UsageError, match="looks like"):
        check_names(bench.broker.registry, [twin])


@pytest.mark.parametrize(
    "hidden",
    [
        "\u202e",
        "\u2066",
        "\u200b",
        "\u00ad",
        "\ufeff",
        "\u3164",
        "\ufe0f",
        "\U000e0041",
    ],
)
async def test_a_name_with_hidden_characters_is_refused(
    bench: Bench, hidden: str
) -> None:
    """Bidirectional and invisible ones make a name read as another."""
    with pytest.raises(UsageError, match="bidirectional or invisible"):
        await bench.agent(f"pay{hidden}ments")
    await bench.agent("Z\u00fcrich \u6771\u4eac")


@pytest.mark.parametrize("prefix", ["", "AGT", "sup", "chg", "brk"])
async def test_a_name_of_the_form_of_an_id_is_refused(
    bench: Bench, prefix: str
) -> None:
    """Rules and pages name agents by name or id: one would be taken for another."""
    reader = await bench.agent("reader")
    name = f"{prefix}{reader.id[3:]}" if prefix else reader.id
    for one in (name, name.replace("_", "\uff3f")):
        with pytest.raises(UsageError, match="form of an id"):
            await bench.agent(one)
        with pytest.raises(UsageError, match="form of an id"):
            check_rename(bench.broker, reader, one)
    await bench.agent("agt_reader")


@pytest.mark.parametrize(
    "owner",
    ["alice\u200b", "\u202ealice", "alice\n", "al\tice", "alice ", "", "a" * 201],
)
async def test_an_owner_that_reads_as_another_is_refused(
    bench: Bench, owner: str
) -> None:
    """Else to revoke all agents of the owner as it is shown would find none."""
    with pytest.raises(UsageError, match="owner"):
        new_agent(bench.broker, AgentRequest(name="mail", owner=owner))
    plain = AgentRequest(name="mail", owner="Zoë 東京 <z@a.test>")
    assert new_agent(bench.broker, plain).owner == plain.owner
