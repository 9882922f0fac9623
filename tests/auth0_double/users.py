"""``/users``: listed, added, blocked, and what the vault keeps for them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final

from agentvault_tui.clock import iso
from agentvault_tui.errors import UsageError
from agentvault_tui.tenant.journal import of_epoch
from agentvault_tui.tenant.management import wire
from agentvault_tui.tenant.management.wire import ApiError, bad_body, bad_query
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.store import Store, merged
from agentvault_tui.tenant.users import CONNECTION, User, checked_name
from auth0_double.bodies import checked, flag, table, text
from auth0_double.calls import Answer, Call, Endpoint

_WEAKEST: Final = 12
"""Characters of the shortest password that is taken."""
_METADATA: Final = table({})
_METADATA_CAP: Final = 16_000
_CHANGES: Final = {
    "blocked": flag,
    "name": text(300),
    "nickname": text(300),
    "user_metadata": _METADATA,
    "app_metadata": _METADATA,
}
_MEMBERS: Final = {
    **_CHANGES,
    "connection": text(128),
    "email": text(64),
    "username": text(64),
    "password": text(256),
    "email_verified": flag,
}
_QUERY: Final = re.compile(r'(email|user_id|name|username):"([^"\\]{1,300})"')


def block(store: Store, sub: str, *, blocked: bool) -> None:
    """Refuse a user's sign-ins, refreshes and exchanges, or let them in again."""
    store.change("UPDATE users SET blocked = ? WHERE sub = ?", int(blocked), sub)


def describe(store: Store, user: User, **members: Any) -> None:
    """Add to what is known of a user; a None takes the member away."""
    profile = json.dumps(merged(user.profile, members))
    store.update("users", {"profile": profile}, sub=user.sub)


def no_user() -> ApiError:
    """Return the 404 for a user there is not."""
    return ApiError(404, "The user does not exist.", "inexistent_user")


class UserCalls:
    """The calls about users."""

    def __init__(self, parts: Parts) -> None:
        """Act on the users of a tenant's *parts*."""
        self._store = parts.store
        self._people = parts.people
        self._refresh = parts.refresh
        self._accounts = parts.accounts
        self._connections = parts.connections
        self._hasher = parts.hasher
        self._clock = parts.clock

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        one = "/users/{id}"
        return [
            Endpoint("GET", "/users", ("read:users",), "List or Search Users",
                     self._list),
            Endpoint("POST", "/users", ("create:users",), "Create a User", self._add),
            Endpoint("GET", "/users-by-email", ("read:users",),
                     "Search Users by Email", self._by_email),
            Endpoint("GET", one, ("read:users",), "Get a User", self._get),
            Endpoint("PATCH", one, ("update:users",), "Update a User", self._change),
            Endpoint("DELETE", one, ("delete:users",), "Delete a User", self._delete),
            Endpoint("GET", f"{one}/connected-accounts", ("read:users",),
                     "Get connected accounts for a user", self._accounts_of),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        found = self._people.all()
        if query := call.query.get("q"):
            found = [user for user in found if _matches(user, query)]
        shapes = [shape(user) for user in found]
        if "from" in call.query or "take" in call.query:
            page = wire.by_checkpoint(call.query, "users", shapes, name="user_id")
        else:
            page = wire.by_offset(call.query, "users", shapes, length=True)
        return Answer(200, wire.chosen(call.query, page, "users"))

    def _by_email(self, call: Call) -> Answer:
        email = call.query.get("email")
        if not email:
            raise bad_query("email", "Missing required property: email")
        wanted = email.lower()
        return Answer(200, [shape(u) for u in self._people.all() if u.email == wanted])

    async def _add(self, call: Call) -> Answer:
        body = checked(call.body, _MEMBERS, "connection", "password")
        if body["connection"] != CONNECTION:
            raise bad_body("connection", "The connection does not exist")
        if len(body["password"]) < _WEAKEST:
            raise ApiError(
                400, "PasswordStrengthError: Password is too weak", "invalid_body"
            )
        try:
            name = checked_name(body.get("username") or body.get("email") or "")
        except UsageError as error:
            raise bad_body("username", error.what) from None
        if self._people.by_name(name) is not None:
            raise ApiError(409, "The user already exists.", "user_exists")
        hashed = await asyncio.to_thread(self._hasher.hash, body["password"])
        known = {"email_verified": bool(body.get("email_verified"))}
        for member in ("email", "nickname", "name", "user_metadata", "app_metadata"):
            if body.get(member) is not None:
                known[member] = body[member]
        _check_metadata(known)
        user, _ = self._people.insert(name, hashed, profile=known)
        if body.get("blocked"):
            block(self._store, user.sub, blocked=True)
        return Answer(201, shape(self._people.find(user.sub) or user))

    def _get(self, call: Call) -> Answer:
        return Answer(200, wire.chosen(call.query, shape(self._found(call))))

    def _change(self, call: Call) -> Answer:
        body = checked(call.body, _CHANGES)
        user = self._found(call)
        # A null says nothing of it: only a word lets somebody in again.
        blocked = body.pop("blocked", None)
        if blocked is not None:
            block(self._store, user.sub, blocked=blocked)
        for member in ("user_metadata", "app_metadata"):
            # Auth0 merges the first level; a null takes a key away.
            if body.get(member) is not None:
                body[member] = merged(user.profile.get(member, {}), body[member])
        _check_metadata(body)
        describe(self._store, user, **body, updated_at=iso(self._clock.now()))
        return Answer(200, shape(self._found(call)))

    def _delete(self, call: Call) -> Answer:
        sub = call.path["id"]
        if self._people.delete(sub):
            for held in self._refresh.list(user_id=sub):
                self._refresh.revoke(held.id)
        return Answer(204)

    def _accounts_of(self, call: Call) -> Answer:
        user = self._found(call)
        shapes = []
        for account in self._accounts.list(user.sub):
            connection = self._connections.objects.named(account.connection) or {}
            shapes.append(
                {
                    "id": account.id,
                    "connection": account.connection,
                    "connection_id": connection.get("id"),
                    "strategy": connection.get("strategy"),
                    "access_type": "offline",
                    "scopes": list(account.scopes),
                    "created_at": of_epoch(account.created_at),
                }
            )
        page = wire.by_checkpoint(call.query, "connected_accounts", shapes)
        return Answer(200, page)

    def _found(self, call: Call) -> User:
        user = self._people.find(call.path["id"])
        if user is None:
            raise no_user()
        return user


def shape(user: User) -> dict[str, Any]:
    """Return a user as the API shows it."""
    provider, _, key = user.sub.partition("|")
    shown: dict[str, Any] = {
        "user_id": user.sub,
        "name": user.profile.get("name", user.name),
        "nickname": user.profile.get("nickname", user.name.partition("@")[0]),
        "username": user.name,
        "created_at": user.created_at,
        "updated_at": user.profile.get("updated_at", user.created_at),
        "identities": [
            {
                "connection": CONNECTION,
                "user_id": key,
                "provider": provider,
                "isSocial": False,
            }
        ],
        "user_metadata": user.profile.get("user_metadata", {}),
        "app_metadata": user.profile.get("app_metadata", {}),
    }
    if user.email is not None:
        shown |= {"email": user.email, "email_verified": user.email_verified}
    if user.blocked:
        shown["blocked"] = True
    return shown


def _matches(user: User, query: str) -> bool:
    """Tell whether a user fits one term of Auth0's search: a field and its value."""
    found = _QUERY.fullmatch(query.strip())
    if found is None:
        raise bad_query("q", 'Here only field:"value" is searched for')
    field, value = found.groups()
    names = {"user_id": user.sub, "email": user.email, "username": user.name}
    found_value = names.get(field, user.profile.get("name", user.name))
    return bool(found_value == value)


def _check_metadata(body: dict[str, Any]) -> None:
    for member in ("user_metadata", "app_metadata"):
        if len(json.dumps(body.get(member))) > _METADATA_CAP:
            raise bad_body(member, "The metadata is too large")
