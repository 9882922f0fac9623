"""The tenant's store and people of a test's home, in its file or in a PostgreSQL."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from support.postgres import Database

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.sealing import KEY_BYTES
from agentvault_tui.settings import Settings
from agentvault_tui.tenant import file_store
from agentvault_tui.tenant.store import Store, TenantSeal
from agentvault_tui.tenant.users import UserStore

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_stores: dict[Path, Settings] = {}
"""The team's store of each home that has one, by the folder of its data."""


def settings_of(home: Home) -> Settings:
    return _stores.get(home.data, Settings())


def open_store(home: Home, *, checkpoints: bool = True) -> Store:
    clock = SystemClock()
    settings = settings_of(home)
    return file_store.open_store(home, settings, clock, checkpoints=checkpoints)


def open_users(home: Home, **more: Any) -> UserStore:
    return UserStore(home, settings_of(home), **{"hasher": CHEAP, **more})


def seal_of(home: Home) -> TenantSeal:
    return TenantSeal.of(home, shared=bool(settings_of(home).store.url))


def share(home: Home, database: Database) -> None:
    """Let *home*'s tenant have its store in *database*, sealed by a team's key."""
    home.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not home.team_key.exists():
        home.team_key.write_bytes(secrets.token_bytes(KEY_BYTES))
    _stores[home.data] = database.settings
