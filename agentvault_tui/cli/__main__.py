"""Runs the command line as ``python -m agentvault_tui.cli``."""

from agentvault_tui.cli import main

main()
