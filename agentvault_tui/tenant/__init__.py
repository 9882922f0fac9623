"""The embedded tenant: a small OAuth 2.0 and OpenID provider, shaped like Auth0.

It runs as its own process (`python -m agentvault_tui.tenant`), reached over HTTP alone.
`oauth` is the Authentication API, `management` the Management API, `my_account` and
`vault` what belongs to Token Vault, `login` and `pages` what people see; `parts` puts
them together. What is ours and not Auth0's stands under `/agentvault/`.
Two modules are for others: `users`, with which the administrator of a home keeps its
users, and `device_page_client`, the second device for people without a browser.
"""
