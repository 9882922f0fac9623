"""Where a layer is missing, the reason and its remedy are named, by a real start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.confining import need_confinement
from support.needs import as_root, program

from agentvault_tui.confine import bubblewrap as module
from agentvault_tui.confine.bubblewrap import explain, find_bubblewrap
from agentvault_tui.errors import NotConfinedError

FIND = (
    "from agentvault_tui.confine import find_layers\n"
    "from agentvault_tui.errors import NotConfinedError\n"
    "try: print('ready', *find_layers().names)\n"
    "except NotConfinedError as error: print(error.diagnosis())\n"
)
DENIED = (
    "import ctypes, struct\n"
    "from agentvault_tui.confine.syscalls import build_filter\n"
    "code = build_filter(local_sockets=True)\n"
    "libc, buffer = ctypes.CDLL(None), ctypes.create_string_buffer(code, len(code))\n"
    "libc.prctl(38, 1, 0, 0, 0)\n"
    "program = struct.pack('@HP', len(code) // 8, ctypes.addressof(buffer))\n"
    "assert libc.prctl(22, 2, program, 0, 0) == 0\n"
)


def find_inside(*wrapper: str, before: str = "") -> str:
    """Return what a process finds that is started by *wrapper*."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", before + FIND],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_machine_that_can_is_ready() -> None:
    """The layers are named with the version."""
    need_confinement()
    found = find_inside()
    assert found.startswith("ready bubblewrap 0.")
    assert found.endswith("seccomp")


def test_without_bubblewrap_its_package_is_named() -> None:
    """The program is hidden from a process that looks for it."""
    need_confinement()
    hide = ("--ro-bind", "/dev/null", "/usr/bin/bwrap")
    found = find_inside("bwrap", "--dev-bind", "/", "/", *hide)
    assert found.startswith("bubblewrap is not installed: install it: apt-get install")


def test_without_user_namespaces_the_setting_is_named() -> None:
    """It is off where the process is in a namespace that allows no others."""
    need_confinement()
    off = ("--unshare-user", "--disable-userns")
    found = find_inside("bwrap", "--dev-bind", "/", "/", *off)
    assert found.startswith("user namespaces are off: sysctl -w"), found


@as_root
def test_root_without_setfcap_is_named() -> None:
    """A container's root often lacks that capability, and bubblewrap needs it."""
    need_confinement()
    drop = ("--bounding-set=-setfcap", "--inh-caps=-setfcap")
    found = find_inside(program("setpriv", "util-linux"), *drop)
    assert found.startswith("root lacks the capability CAP_SETFCAP here"), found


def test_a_filter_that_denies_namespaces_is_named() -> None:
    """A container's default filter does, and the page says what to do there."""
    need_confinement()
    found = find_inside(before=DENIED)
    assert found.startswith("the container's seccomp does not let"), found
    assert "docs/confine.md" in found


def test_a_setuid_one_is_refused(tmp_path: Path) -> None:
    """Its faults would be root's, and nothing of ours needs it."""
    path = tmp_path / "bwrap"
    path.write_text("#!/bin/sh\necho bubblewrap 0.12.0\n")
    path.chmod(0o4755)
    with pytest.raises(NotConfinedError, match="is setuid") as caught:
        find_bubblewrap([str(tmp_path)])
    assert "chmod u-s" in caught.value.remedy


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("0.7.9", True),
        ("0.8.0", False),
        ("0.11.2", False),
        ("0.12.0", False),
        ("1.0.1", False),
        ("what", True),
    ],
)
def test_versions_are_compared(tmp_path: Path, version: str, refused: bool) -> None:
    """Before 0.8.0 it cannot keep a command from making namespaces of its own."""
    path = tmp_path / "bwrap"
    path.write_text(f"#!/bin/sh\necho bubblewrap {version}\n")
    path.chmod(0o755)
    if refused:
        with pytest.raises(NotConfinedError, match="too old"):
            find_bubblewrap([str(tmp_path)])
        return
    found = find_bubblewrap([str(tmp_path)])
    assert found.version == version
    assert found.mounts_descriptors is (version in {"0.12.0", "1.0.1"})


def test_a_program_of_a_project_is_not_taken() -> None:
    """PATH may have a folder that an agent writes; only the system's are looked in."""
    assert all(one.startswith(("/usr/", "/run/")) for one in module.PROGRAM_FOLDERS)


@pytest.mark.parametrize(
    ("message", "settings", "part"),
    [
        (
            "bwrap: setting up uid map: Permission denied\n",
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            "bwrap-userns-restrict",
        ),
        (
            "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted\n",
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            "AppArmor does not let",
        ),
        (
            "bwrap: No permissions to create new namespace\n",
            {"user/max_user_namespaces": "0"},
            "user namespaces are off",
        ),
        (
            "bwrap: No permissions to create new namespace\n",
            {"user/max_user_namespaces": "9"},
            "the container's seccomp",
        ),
        (
            "bwrap: Failed to make / slave: Permission denied\n",
            {},
            "container's AppArmor",
        ),
        ("bwrap: prctl(PR_SET_SECCOMP): Invalid\n", {}, "CONFIG_SECCOMP_FILTER"),
        ("", {}, "it said nothing"),
        ("bwrap: something new\n", {}, "bwrap: something new"),
    ],
)
def test_each_failure_has_its_reason(
    monkeypatch: pytest.MonkeyPatch, message: str, settings: dict[str, str], part: str
) -> None:
    """Machines that were not there: by bubblewrap's message, as its documents say."""
    monkeypatch.setattr(module, "_setting", lambda name: settings.get(name, ""))
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    error = explain(message)
    assert part in error.diagnosis()
    assert error.remedy
    assert "unconfined" not in error.diagnosis()
    assert "apparmor_restrict" not in error.diagnosis()
