"""Lets ``python -m agentvault_tui.cli`` stand in for the installed script."""

from agentvault_tui.cli import main

main()
