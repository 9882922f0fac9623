"""The operators' API as types, shared by broker, console and command line."""
