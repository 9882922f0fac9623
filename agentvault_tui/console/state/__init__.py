"""The read model of the console, and its derived data."""
