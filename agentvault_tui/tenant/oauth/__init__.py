"""The Authentication API: discovery, device flow, tokens, revocation, userinfo.

Why not Authlib's server side (rfc8628, rfc7009): its grants are synchronous and raise
`invalid_request` and 400 where Auth0 answers `invalid_grant`, 403 and 429; it knows
neither `expired_token` exactly once nor a code that is spent by one statement; it logs
the issued token. Every method that decides something would be overridden, so what
would be left is a dispatch on `grant_type`. Signing is joserfc's, as everywhere.
"""
