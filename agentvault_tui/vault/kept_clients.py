"""The credentials of our applications on a tenant: one private file in the home."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agentvault_tui.errors import NotFoundError, SettingsError
from agentvault_tui.home import Home, private_folder, put_private
from agentvault_tui.vault.issuer import check_issuer, origin
from agentvault_tui.vault.secret import Secret


class ClientSecretsFile:
    """One file for one tenant, 0600 in ``keys/``, replaced in one step.

    It has a member for each application, ``console``, ``management`` and
    ``agents/<id>``: ``client_id`` and, where there are such, ``client_secret`` and
    ``worker_key``, a private key in PEM.
    """

    def __init__(self, home: Home, issuer: str) -> None:
        """Keep the clients of the tenant *issuer* in *home*."""
        _, host, port = origin(check_issuer(issuer)) or ("", "", 0)
        # A host is letters, digits, dots, hyphens and colons: a plain file name.
        self.path: Final = home.keys / f"auth0-{host.replace(':', '.')}-{port}.json"

    def known(self) -> dict[str, tuple[str, bool]]:
        """Return each application's client, and whether its secret is kept."""
        return {
            key: (str(one["client_id"]), "client_secret" in one)
            for key, one in self._read().items()
            if isinstance(one, dict) and one.get("client_id")
        }

    def client_id(self, key: str) -> str:
        """Return the client kept under *key*, or ``""``."""
        return str(self._one(key).get("client_id", ""))

    def secret(self, key: str) -> Secret:
        """Return the secret kept under *key*, read when it is used.

        Raises:
            NotFoundError: there is none.
        """

        def read() -> str:
            found = self._one(key).get("client_secret")
            if not isinstance(found, str):
                raise NotFoundError(
                    f"the secret of {key} is not in this home", "agentvault auth0 apply"
                )
            return found

        read()
        return Secret(read)

    def has_secret(self, key: str, client_id: str) -> bool:
        """Tell whether the secret of *client_id* is kept under *key*."""
        one = self._one(key)
        return one.get("client_id") == client_id and "client_secret" in one

    def keep(self, key: str, client_id: str, secret: Secret | None) -> None:
        """Keep a client, and its secret if it has one; on disk when this returns."""
        with self._alone():
            one = self._one(key)
            if one.get("client_id") != client_id:
                one = {}
            one["client_id"] = client_id
            if secret is not None:
                one["client_secret"] = secret.reveal()
            self._write({**self._read(), key: one})

    def worker_key(self, key: str) -> str:
        """Return the tenant's id of the worker's key kept under *key*, or ``""``."""
        one = self._one(key)
        return str(one.get("worker_key_id", "")) if "worker_key" in one else ""

    def keep_worker_key(self, key: str, identity: str, pem: Secret) -> None:
        """Keep a worker's private key, and the *identity* its public part has."""
        kept = {"worker_key": pem.reveal(), "worker_key_id": identity}
        with self._alone():
            self._write({**self._read(), key: {**self._one(key), **kept}})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the file for a change: `apply` runs beside a broker.

        A secret that the other wrote meanwhile would be lost, and is told only once.
        """
        private_folder(self.path.parent)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _one(self, key: str) -> dict[str, object]:
        found = self._read().get(key, {})
        return found if isinstance(found, dict) else {}

    def _read(self) -> dict[str, object]:
        try:
            value = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            # Without its cause: what a parser says may quote the file.
            raise self._damaged() from (error if isinstance(error, OSError) else None)
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
