"""The screen operators watch and decide on: a client of the operators' HTTP."""
