"""A console on authlib: signs a person in by device flow, and out again."""

from __future__ import annotations

import json
import sys
from typing import Any

from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url
from joserfc import jwt
from joserfc.jwk import KeySet

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


class Console:
    def __init__(self, issuer: str, client_id: str, audience: str) -> None:
        self.client_id, self.audience, self.device_code = client_id, audience, ""
        self.session = OAuth2Session(client_id, token_endpoint_auth_method="none")
        where = get_well_known_url(issuer, external=True)
        self.metadata = OpenIDProviderMetadata(self.plain("GET", where))

    def plain(self, method: str, url: str, **more: Any) -> Any:
        return self.session.request(method, url, withhold_token=True, **more).json()

    def start(self) -> Any:
        form = {
            "client_id": self.client_id,
            "scope": "openid profile email offline_access",
            "audience": self.audience,
        }
        endpoint = self.metadata["device_authorization_endpoint"]
        flow = self.plain("POST", endpoint, data=form)
        self.device_code = flow["device_code"]
        return flow

    def poll(self) -> Any:
        endpoint = self.metadata["token_endpoint"]
        form = {"grant_type": DEVICE, "device_code": self.device_code}
        return self.claims(self.session.fetch_token(endpoint, **form))

    def claims(self, token: dict[str, Any]) -> Any:
        keys = KeySet.import_key_set(self.plain("GET", self.metadata["jwks_uri"]))
        read = jwt.decode(token["id_token"], keys, algorithms=["RS256"])
        options = {
            "iss": {"essential": True, "value": self.metadata["issuer"]},
            "aud": {"essential": True, "value": self.client_id},
        }
        params = {"client_id": self.client_id, "access_token": token["access_token"]}
        found = CodeIDToken(read.claims, read.header, options, params)
        found.validate()
        return dict(found)

    def refresh(self) -> Any:
        return self.claims(self.session.refresh_token(self.metadata["token_endpoint"]))

    def revoke(self) -> Any:
        token = self.session.token["refresh_token"]
        endpoint = self.metadata["revocation_endpoint"]
        return {"status": self.session.revoke_token(endpoint, token=token).status_code}


def main() -> None:
    console = Console(**json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        try:
            said = getattr(console, line.strip())()
        except OAuthError as error:
            said = {"raised": error.error}
        print(json.dumps(said), flush=True)


main()
