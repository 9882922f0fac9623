"""The credentials of our applications on a tenant: one private file in the home."""

from __future__ import annotations

import base64
import json
from typing import ClassVar, Final

from agentvault_tui.errors import NotFoundError, ServiceError, SettingsError
from agentvault_tui.home import Home, locked_folder, put_private
from agentvault_tui.sealing import Seal
from agentvault_tui.trusted_files import read_trusted
from agentvault_tui.vault.credentials import Secret
from agentvault_tui.vault.issuer import check_issuer, origin

_SECRETS: Final = ("client_secret", "worker_key")


class ClientsSeal(Seal):
    """The seal of a team's file."""

    WHOSE: ClassVar[str] = "clients"
    LOST: ClassVar[str] = "every application needs a new secret"


class ClientSecretsFile:
    """One file for one tenant, 0600 in ``keys/``, replaced in one step.

    It is locked for a change: `apply` runs next to a broker, and a secret that the
    other wrote meanwhile would be lost, and is shown only once.

    It has a member for each application, ``console``, ``management`` and
    ``agents/<id>``: ``client_id`` and, where there are such, ``client_secret`` and
    ``worker_key``, a private key in PEM. Where a store is shared those two are sealed
    with the team's key.
    """

    def __init__(self, home: Home, issuer: str, *, shared: bool = False) -> None:
        """Store the clients of *issuer* in *home*, for a team if *shared*."""
        self._home = home
        self._shared = shared
        _, host, port = origin(check_issuer(issuer)) or ("", "", 0)
        # A host is letters, digits, dots, hyphens and colons: a plain file name.
        self.path: Final = home.keys / f"auth0-{host.replace(':', '.')}-{port}.json"

    def listed(self) -> dict[str, tuple[str, bool]]:
        """Return each application's client, and whether its secret is stored."""
        return {
            key: (str(one["client_id"]), "client_secret" in one)
            for key, one in self._read().items()
            if isinstance(one, dict) and one.get("client_id")
        }

    def client_id(self, key: str) -> str:
        """Return the client stored under *key*, or ``""``."""
        return str(self._one(key).get("client_id", ""))

    def secret(self, key: str) -> Secret:
        """Return the secret stored under *key*, read when it is used.

        Raises:
            NotFoundError: there is none.
        """

        def read() -> str:
            match self._one(key).get("client_secret"):
                case str(text):
                    return text
                case {"sealed": str(box)}:
                    return self._open(key, "client_secret", box)
            raise NotFoundError(
                f"the secret of {key} is not in this home", "agentvault auth0 apply"
            )

        if not isinstance(self._one(key).get("client_secret"), dict):
            read()  # of a sealed one, whether it opens is seen when it is sent
        return Secret(read)

    def has_secret(self, key: str, client_id: str) -> bool:
        """Check whether the secret of *client_id* is stored under *key*."""
        one = self._one(key)
        return one.get("client_id") == client_id and "client_secret" in one

    def keep(self, key: str, client_id: str, secret: Secret | None) -> None:
        """Store a client, and its secret if it has one; on disk when this returns."""
        with locked_folder(self.path.parent):
            one = self._one(key)
            if one.get("client_id") != client_id:
                one = {}
            one["client_id"] = client_id
            if secret is not None:
                one["client_secret"] = self._store(key, "client_secret", secret)
            self._write({**self._read(), key: one})

    def worker_key(self, key: str) -> str:
        """Return the tenant's id of the worker's key stored under *key*, or ``""``."""
        one = self._one(key)
        return str(one.get("worker_key_id", "")) if "worker_key" in one else ""

    def keep_worker_key(self, key: str, identity: str, pem: Secret) -> None:
        """Store a worker's private key, and the *identity* of its public part."""
        with locked_folder(self.path.parent):
            sealed = self._store(key, "worker_key", pem)
            fields = {"worker_key": sealed, "worker_key_id": identity}
            self._write({**self._read(), key: {**self._one(key), **fields}})

    def check(self, key: str, text: str) -> None:
        """Refuse a member of the file that the team's other brokers could not use.

        Raises:
            ServiceError: it holds a secret that is not sealed.
            SealedError: the team's key does not open one.
        """
        one = json.loads(text)
        for member in _SECRETS if isinstance(one, dict) else ():
            match one.get(member):
                case {"sealed": str(box)}:
                    self._open(key, member, box)
                case None:
                    pass
                case _:
                    raise ServiceError("it is not sealed", "agentvault team key new")

    def seal(self) -> ClientsSeal:
        """Return the seal of a team's; SealedError: its key is not here."""
        return ClientsSeal.of(self._home, shared=True)

    async def seal_anew(self) -> None:
        """Encrypt with the team's active key all values in clear, or under another key.

        Raises:
            SealedError: something opens with none of the keys here.
        """
        with locked_folder(self.path.parent):
            content = self._read()
            changed = {
                key: self._sealed_anew(key, one) if isinstance(one, dict) else one
                for key, one in content.items()
            }
            if changed != content:
                self._write(changed)

    def _sealed_anew(self, key: str, before: dict[str, object]) -> dict[str, object]:
        one, seal = {**before}, self.seal()
        for member in _SECRETS:
            match one.get(member):
                case str(plain):
                    one[member] = self._store(key, member, Secret(plain))
                case {"sealed": str(text)}:
                    box = self._box(text)
                    renewed = seal.renewed(member, self._owner(key), 1, box)
                    if renewed is not None:
                        one[member] = {"sealed": base64.b64encode(renewed).decode()}
        return one

    def _store(self, key: str, member: str, secret: Secret) -> object:
        """Return a secret as the file has it."""
        if not self._shared:
            return secret.reveal()
        plain = secret.reveal().encode()
        box = self.seal().close(member, self._owner(key), 1, plain)
        return {"sealed": base64.b64encode(box).decode()}

    def _open(self, key: str, member: str, text: str) -> str:
        opened = self.seal().open(member, self._owner(key), 1, self._box(text))
        return opened.decode()

    def _box(self, text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise self._damaged() from None

    def _owner(self, key: str) -> str:
        return f"{self.path.name} {key}"

    def _one(self, key: str) -> dict[str, object]:
        entry = self._read().get(key, {})
        return entry if isinstance(entry, dict) else {}

    def _read(self) -> dict[str, object]:
        try:
            content = read_trusted(self.path, self._home.data)
            value = {} if content is None else json.loads(content)
        except (ValueError, RecursionError):
            # Without its cause: what a parser says may quote the file.
            raise self._damaged() from None
        if not isinstance(value, dict):
            raise self._damaged()
        return value

    def _damaged(self) -> SettingsError:
        return SettingsError(
            f"{self.path} cannot be read",
            "restore it, or move it away: apply then makes new secrets",
        )

    def _write(self, value: dict[str, object]) -> None:
        put_private(self.path, json.dumps(value, indent=1).encode(), replace=True)
