"""Registering an agent: its name is its own, and many agents cost no more than few."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench import Bench

from agentvault_tui import lookalikes
from agentvault_tui.broker import registry
from agentvault_tui.broker.usecases import register
from agentvault_tui.errors import ConflictError
from agentvault_tui.lookalikes import fold_name


@pytest.mark.parametrize("twin", ["Payer", "pa\u200byer", " payer", "ｐａｙｅｒ"])
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
        monkeypatch.setattr(module, "fold_name", counting(fold_name))
    for number in range(20):
        await bench.agent(f"agent-{number}")
    assert set(folded[-2:]) == {"agent-19"}
    assert len(folded) == 40


@pytest.mark.slow
@given(st.text(st.characters(max_codepoint=127), max_size=30))
def test_ascii_names_fold_as_all_others_do(name: str) -> None:
    """The short way for ASCII gives what the Unicode way gives."""
    assert fold_name(name) == lookalikes.fold_name(f"{name}é").removesuffix("e")
