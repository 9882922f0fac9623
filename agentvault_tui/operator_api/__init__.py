"""The operators' API as types: what broker, console and command line share."""
