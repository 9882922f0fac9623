"""All that the fork server has before it forks, which its processes share.

A broker or a command would import it after each fork. The shipped policy is parsed for
its schema and catalogue. Then all is frozen: the garbage collector of a forked process
neither walks these objects nor makes their memory its own.
"""

from __future__ import annotations

import gc
import pkgutil
from importlib import import_module

from agentvault_tui import cli
from agentvault_tui.policy import Policy, PolicyTexts
from agentvault_tui.policy.engine import SHIPPED

_COMMANDS = [one.name for one in pkgutil.iter_modules(cli.__path__)]
for _name in (
    *(f"{cli.__name__}.{one}" for one in _COMMANDS if one != "__main__"),
    "agentvault_tui.broker.serve",
    "agentvault_tui.console.app",
    "agentvault_tui.gateway",
    "agentvault_tui.tenant.copying",
    "agentvault_tui.tenant.process",
    "agentvault_tui.tenant.users",
    "agentvault_tui.watch",
    "anyio._backends._asyncio",
    "cryptography.hazmat.backends.openssl",
    "httpcore",
    "support.confining",
    "support.tenant_store",
):
    import_module(_name)
Policy.of(PolicyTexts(), (SHIPPED,) * 3)
gc.collect()
gc.freeze()
