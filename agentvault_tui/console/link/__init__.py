"""HTTP to the broker over its Unix socket."""
