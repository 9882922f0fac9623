"""What auth0-python 6 returned or raised, as JSON holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from auth0.authentication.exceptions import Auth0Error
from auth0.management.core.api_error import ApiError


def plain(found: Any) -> Any:
    """Return a model, a page of them or what else there is, as JSON holds it."""
    if hasattr(found, "model_dump"):
        return found.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(found, Iterable) and not isinstance(found, str | dict):
        return [plain(one) for one in found]
    return found


def told(call: Callable[[], Any]) -> Any:
    try:
        return plain(call())
    except ApiError as error:
        return {"raised": type(error).__name__, "status": error.status_code}
    except Auth0Error as error:
        return {
            "raised": error.error_code,
            "status": error.status_code,
            "message": error.message,
        }
