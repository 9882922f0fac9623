"""``python -m agentvault_tui.tenant``."""

import sys

from agentvault_tui.tenant.process import main

if __name__ == "__main__":
    sys.exit(main())
