"""The read model of the console, and what is derived from it."""
