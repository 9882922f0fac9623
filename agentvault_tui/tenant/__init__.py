"""The embedded tenant: a small OAuth 2.0 and OpenID provider, shaped like Auth0.

It runs as its own process (`python -m agentvault_tui.tenant`), reached over HTTP alone.
`parts` makes its services, `app` what it serves: `oauth` is the Authentication API,
`management` the calls of the Management API that the broker makes, `my_account` and
`vault` belong to Token Vault, `activation` and `login` are the pages people see.
What is ours and not Auth0's stands under `/agentvault/`.
Two modules are for others: `users`, with which the administrator of a home keeps its
users, and `device_page_client`, the second device for people without a browser.
"""
