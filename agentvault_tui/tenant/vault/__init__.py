"""Token Vault: provider tokens kept for users, and exchanged for by clients."""
