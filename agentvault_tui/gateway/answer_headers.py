"""Headers of a service's answer: which are passed on to the agent.

An allow list would break APIs, because clients read names that each service invents
(``X-Total-Count``, ``X-RateLimit-Remaining``, ``Stripe-Version``). So names are removed
that give an order to a program between the service and the agent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from agentvault_tui.gateway.headers import HOP_BY_HOP
from agentvault_tui.web.reply import Header

_DROPPED: Final = HOP_BY_HOP | frozenset(
    "alt-svc clear-site-data set-cookie set-cookie2 strict-transport-security"  # noqa: SIM905
    " www-authenticate".split()
)
"""Of one connection, for the holder of the credential, or about the broker's own
origin."""
_ORDERS: Final = re.compile(
    r"""agentvault-.*              # the gateway's own
    |x-accel-.*                    # nginx: ngx_http_proxy_module, X-Accel-Redirect
    |x-sendfile.*                  # Apache's mod_xsendfile, Cherokee, uWSGI
    |x-lighttpd-.*                 # lighttpd: X-LIGHTTPD-send-file
    |x-litespeed-.*                # LiteSpeed: X-LiteSpeed-Location
    |x-reproxy-.*                  # Perlbal and H2O: X-Reproxy-URL
    |x-appengine-.*                # App Engine: X-AppEngine-BlobKey
    |x-envoy-.*                    # Envoy: x-envoy-immediate-health-check-fail
    |fly-replay.*                  # Fly.io sends the request to another app
    |surrogate-.*|x-esi            # Edge Architecture 1.0; Traffic Server's ESI
    |cdn-.*|.+-cache-control       # RFC 9213, CDN-Loop (RFC 8586)
    |edge-.*                       # Akamai: Edge-Control
    |proxy-.*                      # RFC 9110, RFC 9209
    """,
    re.VERBOSE,
)
"""Orders to a web server, proxy or cache on the way: nginx sends the agent's request,
with its token, to the path that ``X-Accel-Redirect`` names."""
_PRIVATE: Final = (b"cache-control", b"private")


def passed_on(raw: Iterable[Header]) -> list[Header]:
    """Return the headers of an answer that the agent gets, with names in lower case.

    The answer was decided for one agent, so no shared cache may store it (RFC 9111).
    """
    answer = [(name.lower(), value) for name, value in raw]
    named = {
        token.strip().lower()
        for name, value in answer
        if name == b"connection"
        for token in value.decode("latin-1").split(",")
    }
    dropped = _DROPPED | named
    return [
        (name, value)
        for name, value in answer
        if (text := name.decode("latin-1")) not in dropped
        and not _ORDERS.fullmatch(text.replace("_", "-"))
    ] + [_PRIVATE]
