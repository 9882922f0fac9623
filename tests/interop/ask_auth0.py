"""A client on auth0-python 6 as it comes: asks for a person by CIBA, told when to poll.

Runs under an interpreter of its own, which has the SDK and nothing of ours.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

from auth0.authentication import GetToken
from auth0.authentication.back_channel_login import BackChannelLogin
from sdk_answers import told


def main() -> None:
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    client = {
        "domain": given["domain"],
        "client_id": given["client_id"],
        "client_secret": given["client_secret"],
        "protocol": "http",
    }
    asking, getting = BackChannelLogin(**client), GetToken(**client)
    request = ""
    for line in sys.stdin:
        if line.strip() == "start":
            said = told(partial(asking.back_channel_login, **given["asks"]))
            request = said.get("auth_req_id", "")
        else:
            said = told(partial(getting.backchannel_login, request))
        print(json.dumps(said), flush=True)


main()
