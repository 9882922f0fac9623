"""The Authentication API: discovery, device flow, tokens, revocation, userinfo.

Authlib's server side (rfc8628, rfc7009) is not used: its grants are synchronous, answer
`invalid_request` and 400 where Auth0 has `invalid_grant`, 403 and 429, know neither
`expired_token` exactly once nor a code that one statement spends, and log the issued
token. joserfc signs, as everywhere.
"""
