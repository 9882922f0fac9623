"""The Management API's error envelope."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any


class ApiError(Exception):
    """A refusal, as ``{statusCode, error, message, errorCode}``."""

    def __init__(self, status: int, message: str, code: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code

    def envelope(self) -> dict[str, Any]:
        said = {
            "statusCode": self.status,
            "error": HTTPStatus(self.status).phrase,
            "message": self.message,
        }
        # Some of Auth0's own have none.
        return said if self.code is None else {**said, "errorCode": self.code}


def not_found(message: str, code: str | None) -> ApiError:
    """Return the 404 for a thing there is not."""
    return ApiError(404, message, code)


def no_client() -> ApiError:
    """Return the 404 for a client there is not."""
    return not_found("The client does not exist", "inexistent_client")


def no_api() -> ApiError:
    """Return the 404 for a resource server there is not."""
    return not_found("The resource server does not exist", "inexistent_resource_server")


def no_user() -> ApiError:
    """Return the 404 for a user there is not."""
    return not_found("The user does not exist.", "inexistent_user")


def bad_query(name: str, why: str) -> ApiError:
    """Return the 400 for a query parameter."""
    return ApiError(
        400,
        f"Query validation error: '{why}' on property {name}.",
        "invalid_query_string",
    )


def bad_body(name: str, why: str) -> ApiError:
    """Return the 400 for a member of the body."""
    return ApiError(
        400, f"Payload validation error: '{why}' on property {name}.", "invalid_body"
    )
