"""``[console]`` of the settings, which the console reads without the other sections."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final, Literal

from agentvault_tui.home import Home
from agentvault_tui.toml_table import read_members, read_toml

_SECTION: Final = "console"


class Switch(StrEnum):
    """On, off, or as the surroundings suggest."""

    ON = "true"
    OFF = "false"
    AUTO = "auto"

    @classmethod
    def _missing_(cls, value: object) -> Switch | None:
        words = {"true": cls.ON, "yes": cls.ON, "1": cls.ON}
        words |= {"false": cls.OFF, "no": cls.OFF, "0": cls.OFF}
        return words.get(str(value).lower())


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """``[console]``."""

    theme: str = "agentvault"
    """The colour theme; ``:theme`` in the console lists and tries them."""
    link: Literal["fast", "slow"] = "fast"
    """``fast`` or ``slow`` connection: how often the console repaints events."""
    mouse: Switch = Switch.OFF
    """``true``, ``false``, or ``auto``: on, except over SSH."""
    label: str = ""
    """The name of this AgentVault, such as ``PROD``, in the header and in the titles of
    dialogs: at most 16 cells."""
    ascii: Literal["auto", "yes", "no"] = "auto"
    """Draw in ASCII: ``yes``, ``no``, or ``auto``, which follows the locale."""

    @classmethod
    def load(
        cls,
        home: Home,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, object] | None = None,
    ) -> ConsoleSettings:
        """Read ``[console]`` from the places that `settings.Settings.load` reads.

        Sections that the console does not use are not checked: with a mistake there you
        can still see and revoke.

        Raises:
            SettingsError: an unknown key, a bad value, or the file is not TOML.
        """
        settings = cls()
        for source, table in read_sources(home, {_SECTION: cls}, environ, flags or {}):
            if _SECTION in table:
                members = read_members(cls, table[_SECTION], _SECTION, source)
                settings = replace(settings, **members)
        return settings


def read_sources(
    home: Home,
    sections: Mapping[str, type[Any]],
    environ: Mapping[str, str] | None,
    flags: Mapping[str, object],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tables of settings, from the weakest source to the strongest.

    Args:
        home: where ``config.toml`` is looked for; it need not exist.
        sections: the dataclass of each section that the environment may set.
        environ: the environment, by default the process's own.
        flags: ``section.key`` to value; ``None`` values are passed over.

    Yields:
        the source's name for errors, and its values by section.

    Raises:
        SettingsError: the file is no TOML, or others could have written it.
    """
    yield str(home.config_file), read_toml(home.config_file, home.config)
    variables = os.environ if environ is None else environ
    table: dict[str, dict[str, object]] = {}
    for section, kind in sections.items():
        for item in fields(kind):
            value = variables.get(f"AGENTVAULT_{section}_{item.name}".upper())
            if value is not None:
                table.setdefault(section, {})[item.name] = value
    yield "environment", table
    table = {}
    for name, given in flags.items():
        if given is not None:
            section, _, key = name.partition(".")
            table.setdefault(section, {})[key] = given
    yield "command line", table
