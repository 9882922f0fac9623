"""A console on oauthlib: signs a person in by device flow, and out again."""

from __future__ import annotations

import json
import sys
from typing import Any

import requests
from oauthlib.oauth2 import DeviceClient, OAuth2Error
from requests_oauthlib import OAuth2Session


class Console:
    def __init__(self, issuer: str, client_id: str, audience: str) -> None:
        self.client_id, self.audience = client_id, audience
        self.device_code = self.refresh_token = ""
        self.client = DeviceClient(client_id)
        self.session = OAuth2Session(client=self.client)
        where = issuer + ".well-known/openid-configuration"
        self.metadata = requests.get(where, timeout=20).json()

    def start(self) -> Any:
        form = {
            "client_id": self.client_id,
            "scope": "openid profile email offline_access",
            "audience": self.audience,
        }
        endpoint = self.metadata["device_authorization_endpoint"]
        flow = requests.post(endpoint, form, timeout=20).json()
        self.device_code = flow["device_code"]
        return flow

    def poll(self) -> Any:
        token = self.session.fetch_token(
            self.metadata["token_endpoint"],
            device_code=self.device_code,
            include_client_id=True,
        )
        self.refresh_token = token["refresh_token"]
        return self.person(token)

    def person(self, token: dict[str, Any]) -> Any:
        """Ask who it is: oauthlib reads no ID tokens, it hands them on."""
        said = self.session.get(self.metadata["userinfo_endpoint"], timeout=20).json()
        return {**said, "id_token": token["id_token"]}

    def refresh(self) -> Any:
        endpoint = self.metadata["token_endpoint"]
        token = self.session.refresh_token(
            endpoint, self.refresh_token, client_id=self.client_id
        )
        return self.person(token)

    def revoke(self) -> Any:
        url, headers, body = self.client.prepare_token_revocation_request(
            self.metadata["revocation_endpoint"],
            self.refresh_token,
            token_type_hint="refresh_token",
            client_id=self.client_id,
        )
        answer = requests.post(url, body, headers=headers, timeout=20)
        return {"status": answer.status_code}


def main() -> None:
    console = Console(**json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        try:
            said = getattr(console, line.strip())()
        except OAuth2Error as error:
            said = {"raised": error.error}
        print(json.dumps(said), flush=True)


main()
