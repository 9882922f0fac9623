"""All that the fork server has before it forks, which its processes share.

A broker or a command would import it after each fork, parse the shipped policy and
compile paths and pages. A tenant that is new would make two keys for 0.2 s:
it gets two of a few that are made here, and makes those of a rotation itself. Then all
is frozen: the garbage collector of a forked process neither walks these objects nor
makes their memory its own.
"""

from __future__ import annotations

import gc
import pkgutil
import secrets
from functools import cache
from importlib import import_module
from typing import Any
from unittest import mock

import jinja2
from starlette import routing
from support.once import policies, templates

from agentvault_tui import cli
from agentvault_tui.operator_api.calls import CALLS
from agentvault_tui.policy import Policy, PolicyTexts
from agentvault_tui.tenant import keys
from agentvault_tui.tenant.views import Views

_COMMANDS = [one.name for one in pkgutil.iter_modules(cli.__path__)]
for _name in (
    *(f"{cli.__name__}.{one}" for one in _COMMANDS if one != "__main__"),
    "agentvault_tui.broker.serve",
    "agentvault_tui.console.app",
    "agentvault_tui.gateway",
    "agentvault_tui.ledger.team",
    "agentvault_tui.ledger.team_writer",
    "agentvault_tui.tenant.team_store",
    "agentvault_tui.tenant.device_page_client",
    "agentvault_tui.tenant.copying",
    "agentvault_tui.tenant.process",
    "agentvault_tui.tenant.users",
    "agentvault_tui.watch",
    "anyio._backends._asyncio",
    "cryptography.hazmat.backends.openssl",
    "httpcore",
    "support.confining",
    "support.tenant_store",
    "webauthn",
    "webauthn.helpers.structs",
):
    import_module(_name)
Policy.of = policies(Policy.of)
Policy.of(PolicyTexts())
routing.compile_path = cache(routing.compile_path)
for _call in CALLS:
    routing.compile_path(_call.path)
jinja2.Environment.compile = templates()
_pages = Views("https://issuer.test/")._templates
for _name in _pages.list_templates():
    _pages.get_template(_name)
_KEYS = [keys._new_key() for _ in range(8)]
_make_keys = keys.SigningKeys.__init__


def _take_keys(self: keys.SigningKeys, *args: Any) -> None:
    two = iter(secrets.SystemRandom().sample(_KEYS, 2))
    with mock.patch.object(keys, "_new_key", two.__next__):
        _make_keys(self, *args)


keys.SigningKeys.__init__ = _take_keys
gc.collect()
gc.freeze()
