"""The embedded tenant: a small OAuth 2.0 and OpenID provider, shaped like Auth0.

It runs as its own process (`python -m agentvault_tui.tenant`), reached over HTTP alone.
Two modules are for others: `users`, with which the administrator of a home keeps its
users, and `device_page_client`, the second device for people without a browser.
"""
