"""A client on authlib as it comes from PyPI: reads what to use, tells what it got."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url


def told(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except OAuthError as error:
        return {"raised": error.error}


def main() -> None:
    given = json.load(sys.stdin)
    where = get_well_known_url(given["issuer"], external=True)
    metadata = AuthorizationServerMetadata(requests.get(where, timeout=20).json())
    metadata.validate()
    endpoint = metadata["token_endpoint"]

    def session(secret: str, scope: str, method: str) -> OAuth2Session:
        return OAuth2Session(
            given["client_id"], secret, scope=scope, token_endpoint_auth_method=method
        )

    def asked(secret: str, scope: str, method: str = "client_secret_post") -> Any:
        one = session(secret, scope, method)
        return told(lambda: one.fetch_token(endpoint, grant_type="client_credentials"))

    secret, scope = given["client_secret"], "write:calendar"
    own = session(secret, scope, "client_secret_basic")
    token = own.fetch_token(endpoint, grant_type="client_credentials")

    def introspected() -> Any:
        answer = own.introspect_token(
            metadata["introspection_endpoint"],
            token=token["access_token"],
            token_type_hint="access_token",
        )
        return answer.json()

    said = {"discovered": metadata, "token": token, "introspected": introspected()}
    revoked = own.revoke_token(
        metadata["revocation_endpoint"], token=token["access_token"]
    )
    said["revoked"] = None if revoked.ok else revoked.status_code
    said["after"] = introspected()
    said["scope"] = asked(secret, "no:such")
    said["secret"] = asked("wrong", scope)
    json.dump(said, sys.stdout)


main()
