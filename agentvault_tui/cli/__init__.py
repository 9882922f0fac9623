"""The command line: parses an operator's commands and calls the rooms."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Be the ``agentvault`` program; a hook starts without all that others need."""
    _open_streams()
    if sys.argv[1:2] == ["hook"]:
        from agentvault_tui.cli import hook

        code = hook.main(sys.argv[2:])
        if code is not None:
            sys.exit(code)
    # Loading makes many objects and no garbage; without collection it is 10% faster.
    gc.disable()
    from agentvault_tui.cli import app

    gc.enable()
    app.main()


def _open_streams() -> None:
    """Open the standard streams that are closed.

    Otherwise the next file that is opened takes such a number, and a command that we
    start inherits the file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, number)
            if opened != number:
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))
