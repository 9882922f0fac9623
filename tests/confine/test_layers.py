"""What a machine can confine with, and what it says where it cannot."""

from __future__ import annotations

import pytest

from agentvault_tui.confine import landlock, layers
from agentvault_tui.confine.layers import (
    Means,
    find_layers,
    find_strongest,
    is_first_wsl,
)
from agentvault_tui.errors import NotConfinedError


@pytest.fixture
def without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise NotConfinedError("no bubblewrap", "install it")

    monkeypatch.setattr(layers, "find_bubblewrap", absent)


@pytest.mark.usefixtures("without_namespaces")
def test_the_strongest_that_is_left_is_landlock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says why there is no more, and each promise that does not hold."""
    monkeypatch.setattr(landlock, "abi", lambda: 5)
    found = find_strongest()
    assert found.kind is Means.LANDLOCK
    assert found.names == ("Landlock ABI 5", "seccomp")
    assert found.because == "no bubblewrap: install it"
    assert len(found.weaker([7718])) == 9


@pytest.mark.usefixtures("without_namespaces")
def test_without_landlock_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the first reason is what is said."""
    monkeypatch.setattr(landlock, "abi", lambda: 3)
    with pytest.raises(NotConfinedError, match="no bubblewrap"):
        find_strongest()


def test_macos_has_its_own_and_only_as_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole of the confinement is not promised there."""
    monkeypatch.setattr(layers.sys, "platform", "darwin")
    monkeypatch.setattr(layers.platform, "system", lambda: "Darwin")
    with pytest.raises(NotConfinedError, match="no namespaces") as caught:
        find_layers()
    assert "--confine=best" in caught.value.remedy
    monkeypatch.setattr(layers.os, "access", lambda *_: True)
    found = find_strongest()
    assert (found.kind, found.names) == (Means.SEATBELT, ("sandbox-exec",))
    assert found.weaker([1])


def test_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to confine with."""
    monkeypatch.setattr(layers.sys, "platform", "freebsd14")
    with pytest.raises(NotConfinedError, match="run it on Linux"):
        raise_with_remedy()


def raise_with_remedy() -> None:
    try:
        find_strongest()
    except NotConfinedError as error:
        raise NotConfinedError(error.diagnosis()) from None


@pytest.mark.parametrize(
    ("release", "first"),
    [
        ("4.4.0-22621-Microsoft", True),
        ("5.15.153.1-microsoft-standard-WSL2", False),
        ("6.18.44", False),
    ],
)
def test_the_first_wsl_is_known_by_its_kernel(release: str, first: bool) -> None:
    """Its second version is Linux."""
    assert is_first_wsl(release) is first


def test_the_first_wsl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that converts it."""
    monkeypatch.setattr(layers.platform, "release", lambda: "4.4.0-1-Microsoft")
    with pytest.raises(NotConfinedError, match="WSL 1") as caught:
        find_layers()
    assert "wsl --set-version" in caught.value.remedy
