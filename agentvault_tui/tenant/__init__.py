"""The embedded tenant: a small OAuth 2.0 and OpenID provider, shaped like Auth0.

It runs as its own process (`python -m agentvault_tui.tenant`), reached over HTTP alone.
`parts` makes its services, `app` its routes: `oauth` is the Authentication API,
`management` the calls of the Management API that the broker makes, `my_account` and
`accounts` belong to Token Vault, `activation` and `login` are the pages people see. Our
own additions to Auth0's routes are under `/agentvault/`. Two modules are for others:
`users`, with which the owner of the home directory manages users, and
`device_page_client`, which approves a device code without a browser.
"""
