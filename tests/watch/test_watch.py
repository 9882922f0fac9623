"""Which advice an operator can decide about, after it was told."""

from __future__ import annotations

from support.wire_shapes import filled

from agentvault_tui.operator_api.advice import AdviceInfo
from agentvault_tui.watch.watch import _WINDOWS, _keep, _Listed, _named


def test_advice_of_the_last_windows_can_be_decided_about() -> None:
    """So many are kept that memory stays bounded; the one told longest ago goes."""
    listed: _Listed = {}

    def tell(window: int) -> None:
        _keep(listed, window, [filled(AdviceInfo, {"id": f"adv_{window}"})])

    def can_be_named(window: int) -> bool:
        return _named(listed, f"adv_{window}") is not None

    for window in range(_WINDOWS):
        tell(window)
    assert can_be_named(0)
    tell(0)
    tell(_WINDOWS)
    assert [can_be_named(window) for window in range(3)] == [True, False, True]
    assert len(listed) == _WINDOWS == 8
