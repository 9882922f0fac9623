"""auth0-python as it comes: its own grant has no scope, its authenticated POST has."""

from __future__ import annotations

import json
import sys

from auth0 import Auth0Error
from auth0.authentication import GetToken


def main() -> None:
    given = json.load(sys.stdin)
    domain = given["issuer"].partition("://")[2]
    getting = GetToken(domain, given["client_id"], given["client_secret"])
    try:
        without = getting.client_credentials("https://any.test/")
    except Auth0Error as error:
        without = {"raised": error.error_code, "told": error.message}
    form = {
        "grant_type": "client_credentials",
        "client_id": given["client_id"],
        "scope": "write:calendar",
    }
    token = getting.authenticated_post(f"https://{domain}/oauth/token", data=form)
    json.dump({"without": without, "token": token}, sys.stdout)


main()
