"""``python -m agentvault_tui.tenant``."""

import signal
import sys

# Until it can end in good order: Ctrl-C at a terminal is for the broker, whose end is
# the end of our stdin too.
signal.signal(signal.SIGINT, signal.SIG_IGN)

from agentvault_tui.tenant.process import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
