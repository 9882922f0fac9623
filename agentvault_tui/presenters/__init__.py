"""Records in words: the same on every face."""
