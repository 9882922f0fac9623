"""The Management API: what an administrator's program sees and changes."""
