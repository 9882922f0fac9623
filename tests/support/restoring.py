"""`restore_backup` as `agentvault restore` calls it."""

from functools import partial

from agentvault_tui.broker import restore
from agentvault_tui.tenant.copying import into_team

restore_backup = partial(restore.restore_backup, into_team=into_team)
