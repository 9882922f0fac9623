"""A client on oauthlib as it comes from PyPI: reads what to use, tells what it got."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import requests
from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session


def told(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except OAuth2Error as error:
        return {"raised": error.error}


def main() -> None:
    given = json.load(sys.stdin)
    # oauthlib itself knows neither RFC 8414 nor RFC 7662: those two are plain HTTP.
    where = given["issuer"] + "/.well-known/oauth-authorization-server"
    metadata = requests.get(where, timeout=20).json()

    def asked(secret: str, scope: str) -> Any:
        client = BackendApplicationClient(given["client_id"], scope=scope)
        session = OAuth2Session(client=client)
        auth = HTTPBasicAuth(given["client_id"], secret)
        return told(lambda: session.fetch_token(metadata["token_endpoint"], auth=auth))

    secret, scope = given["client_secret"], "write:calendar"
    token = asked(secret, scope)
    auth = HTTPBasicAuth(given["client_id"], secret)

    def introspected() -> Any:
        form = {"token": token["access_token"]}
        endpoint = metadata["introspection_endpoint"]
        return requests.post(endpoint, form, auth=auth, timeout=20).json()

    said = {"discovered": metadata, "token": token, "introspected": introspected()}
    url, headers, body = BackendApplicationClient(
        given["client_id"]
    ).prepare_token_revocation_request(
        metadata["revocation_endpoint"], token["access_token"]
    )
    revoked = requests.post(url, body, headers=headers, auth=auth, timeout=20)
    said["revoked"] = None if revoked.ok else revoked.status_code
    said["after"] = introspected()
    said["scope"] = asked(secret, "no:such")
    said["secret"] = asked("wrong", scope)
    json.dump(said, sys.stdout)


main()
