"""Where a tenant says what it does beyond Auth0, named once for it and its clients."""

from __future__ import annotations

from typing import Final

EXTENSIONS_PATH: Final = "/agentvault/metadata"
"""Below the issuer. Auth0 has nothing there, and its own document has none of this."""
DETAILS_TYPES: Final = "authorization_details_types_supported"
"""RFC 9396 section 10, here of the device flow: what a tenant shows the person who
approves. Auth0 has such details elsewhere, and not in this flow."""
