"""The pages where a person signs in for a client, or connects an account."""
