"""The Management API: the calls of an administrator's program."""
