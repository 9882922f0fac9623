"""An agent on authlib, with a key instead of a secret, that is held for a person."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey

CIBA = "urn:openid:params:grant-type:ciba"


class Agent:
    def __init__(self, given: dict[str, Any], seconds: int | None) -> None:
        self.given, self.answers, self.seconds = given, list[Any](), seconds
        self.endpoint = given["issuer"] + "/oauth/token"
        self.session = OAuth2Session(
            given["client_id"],
            ECKey.import_key(given["jwk"]),
            token_endpoint_auth_method="private_key_jwt",
        )
        self.session.register_client_auth_method(("private_key_jwt", self.prove))
        # It raises an error's name; the answer says more.
        self.session.register_compliance_hook(
            "access_token_response", lambda reply: self.answers.append(reply) or reply
        )
        self.held = ""

    def prove(self, auth: Any, *request: Any) -> Any:
        """Sign each request anew: claims given once would be a ``jti`` used twice."""
        seconds = self.seconds
        claims = None if seconds is None else {"exp": int(time.time()) + seconds}
        return PrivateKeyJWT(self.endpoint, claims, alg="ES256")(auth, *request)

    def token(self, **form: str) -> Any:
        try:
            self.session.fetch_token(self.endpoint, **form)
        except OAuthError as error:
            return {"raised": error.error, **self.answers[-1].json()}
        return self.answers[-1].json()

    def ask(self) -> Any:
        answer = self.token(
            grant_type="client_credentials",
            scope="send:payment",
            authorization_details=json.dumps([self.given["details"]]),
        )
        self.held = answer.get("auth_req_id", "")
        return answer

    def poll(self) -> Any:
        return self.token(grant_type=CIBA, auth_req_id=self.held)

    def introspect(self) -> Any:
        url = self.given["issuer"] + "/oauth/introspect"
        token = self.session.token["access_token"]
        return self.session.introspect_token(url, token=token).json()


def main() -> None:
    given = json.loads(sys.stdin.readline())
    agent = Agent(given, seconds=60)
    calls = {
        "ask as authlib signs by itself": Agent(given, seconds=None).ask,
        "ask": agent.ask,
        "poll": agent.poll,
        "introspect": agent.introspect,
    }
    for line in sys.stdin:
        print(json.dumps(calls[line.strip()]()), flush=True)


main()
