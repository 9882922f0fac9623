"""A stand-in for Auth0: the embedded tenant's app, and what only Auth0 has."""
