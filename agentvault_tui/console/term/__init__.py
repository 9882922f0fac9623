"""The terminal itself: its output, its keys, its clipboard."""
