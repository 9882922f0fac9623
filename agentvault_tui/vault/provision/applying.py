"""Carries out a plan, object by object, and believes no write it has not read back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from agentvault_tui.errors import (
    TenantCredentialError,
    TenantError,
    TenantNotFoundError,
    TenantRefusedError,
    TenantScopeError,
)
from agentvault_tui.vault.credentials import Secret
from agentvault_tui.vault.management import objects
from agentvault_tui.vault.management.objects import (
    actions,
    client_grants,
    clients,
    connections,
    roles,
)
from agentvault_tui.vault.management.rows import by_plan
from agentvault_tui.vault.provision import names
from agentvault_tui.vault.provision.actions import BY_KEY, Script
from agentvault_tui.vault.provision.desired import DesiredKind, DesiredObject
from agentvault_tui.vault.provision.needs import Needs, TenantSurvey
from agentvault_tui.vault.provision.plan import (
    PlanItem,
    PlanStep,
    ProvisioningPlan,
    make_plan,
)
from agentvault_tui.vault.provision.reading import TenantReader
from agentvault_tui.vault.provision.rules import FieldChange, body, compare, unmet
from agentvault_tui.vault.reply import Json

_TRIES: Final = 3
_PAUSE: Final = 1.0
"""Seconds: a write may be readable a moment later only."""
_MAX_BOUND: Final = 20
"""Actions that Auth0 lets be bound to the login."""
_REREAD: Final = frozenset({DesiredKind.FLOW, DesiredKind.CONNECTION})
"""Kinds that hold lists which others change too: read again before each change."""
_BATCH: Final = 50
"""Clients in one change of a connection."""
_BITS: Final = 3072
"""Of a worker's RSA key."""
_OURS: Final = ("known", "kept", "worker_key")


class Provisioner(TenantReader):
    """Reads a tenant, plans the changes there, and makes them.

    Secrets that the tenant gives go to the keeper alone.
    """

    async def plan(self, needs: Needs) -> tuple[ProvisioningPlan, TenantSurvey]:
        """Return the changes, and the reading they are based on; writes nothing.

        Raises:
            TenantError: as `survey`.
        """
        wanted, survey = await self.survey(needs)
        return make_plan(wanted, survey), survey

    async def apply(
        self, plan: ProvisioningPlan, survey: TenantSurvey
    ) -> AsyncGenerator[PlanItem]:
        """Carry out *plan* in its order; yield each item once it has been read back.

        Features that the tenant's plan lacks are yielded as refused, with those that
        need them; the rest is done. It can be stopped anywhere and planned again.

        Raises:
            TenantError: the tenant would not, or stored another value than it was sent;
                done changes stay.
        """
        ids = dict(survey.ids)
        refused: set[str] = set()
        for item in plan.writes:
            wanted = item.wanted
            assert wanted is not None  # noqa: S101 - one that is written has one
            needed = next((one for one in wanted.after if one in refused), "")
            try:
                done = _refused(item, f"needs {needed}")
                if not needed:
                    done = await self._do(item, wanted, plan, survey, ids)
            except TenantRefusedError as error:
                ours = isinstance(error, TenantScopeError | TenantCredentialError)
                if ours or not (by_plan(error) or wanted.optional):
                    raise
                note = f"{error.what}: {error.remedy}".removesuffix(": ")
                done = _refused(item, note)
            if done.step is PlanStep.REFUSED:
                refused.add(item.address)
            yield done

    async def _do(
        self,
        item: PlanItem,
        wanted: DesiredObject,
        plan: ProvisioningPlan,
        survey: TenantSurvey,
        ids: dict[str, str],
    ) -> PlanItem:
        """Make or change one object, and read it back; its id goes into *ids*."""
        address = wanted.address
        standing = survey.objects.get(address)
        if wanted.kind in _REREAD and standing is not None:
            standing = await self.fetch(wanted.kind, wanted.key, ids.get(address, ""))
        rules = wanted.fields if standing else {**wanted.fixed, **wanted.fields}
        changes = compare(rules, standing or {}, ids)
        if missing := unmet(changes, ids):
            return _refused(item, f"needs {missing}")
        if wanted.kind is DesiredKind.FLOW:
            bound = changes[0].after if changes else []
            if len(bound) > _MAX_BOUND:
                raise TenantError(
                    f"the flow {wanted.key} would have {len(bound)} Actions, and "
                    f"{_MAX_BOUND} fit",
                    "unbind one in the Dashboard, under Actions, Triggers",
                )
            # The names of our own Actions beside those that others' are shown by.
            ours = {
                ids[one.address]: one.title
                for one in plan.items
                if one.address.startswith(f"{DesiredKind.ACTION}.")
                and one.address in ids
            }
            flow = standing or {}
            standing = {**flow, "shown": {**ours, **flow.get("shown", {})}}
        if changes:
            # The tenant adds what it is sent to its settings: the rest stays out.
            beside = {} if wanted.kind is DesiredKind.SETTINGS else standing or {}
            sent = body(changes, beside, ids)
            ids[address] = await self._write(
                wanted, sent, standing, ids.get(address, "")
            )
        await self._confirm(wanted, ids)
        return replace(item, changes=changes)

    async def _confirm(self, wanted: DesiredObject, ids: dict[str, str]) -> None:
        """Read back the written object.

        Raises:
            TenantError: it is another thing than was asked for.
        """
        identity = ids.get(wanted.address, "")
        wrong: tuple[FieldChange, ...] = ()
        for attempt in range(_TRIES):
            if attempt:
                await self.management.tenant.sleep(_PAUSE)
            try:
                standing = await self.fetch(wanted.kind, wanted.key, identity)
            except TenantNotFoundError:
                continue
            wrong = compare({**wanted.fixed, **wanted.fields}, standing, ids)
            if not wrong:
                return
        paths = ", ".join(change.path for change in wrong) or "nothing at all"
        raise TenantError(
            f"{wanted.address} was written, and what reads back differs: {paths}",
            "see it in the Dashboard; apply goes on from here when it is right",
        )

    async def _write(
        self, wanted: DesiredObject, body: Json, standing: Json | None, identity: str
    ) -> str:
        """Send *body* to make *wanted*, or to change it where it is *standing*.

        Returns:
            its id; *identity* is that of an existing one, else ``""``.
        """
        api, now = self.management, standing or {}
        match wanted.kind:
            case DesiredKind.ACTION:
                return await self._write_action(BY_KEY[wanted.key], identity, body)
            case DesiredKind.CLIENT:
                return await self._write_client(wanted.key, identity, body, now)
            case DesiredKind.GRANT:
                return await self._write_grant(identity, body)
            case DesiredKind.ROLE:
                return await self._write_role(identity, body)
            case DesiredKind.CONNECTION:
                await self._write_connection(identity, body, now)
            case DesiredKind.FACTOR:
                await objects.set_factor(api, wanted.key, enabled=bool(body["enabled"]))
            case DesiredKind.SETTINGS:
                await objects.change_settings(api, body)
            case DesiredKind.POLICY:
                await objects.set_mfa_policies(api, body["policies"])
            case DesiredKind.FLOW:
                # The list is sent whole: others' Actions stand in it, and keep the
                # names they are shown by.
                shown = now.get("shown", {})
                bound = [(one, shown.get(one, "")) for one in body["bindings"]]
                await actions.bind(api, wanted.key, bound)
        return identity

    async def _write_grant(self, identity: str, body: Json) -> str:
        """Let a client use an API, and delete a grant that was stored differently.

        Seen on real tenants: ``subject_type`` is dropped without a word, and the stored
        grant then lets the client in without any user.
        """
        if identity:
            await client_grants.patch(self.management, identity, body)
            return identity
        before = {one.get("id") for one in await self._like(body)}
        try:
            return str((await client_grants.create(self.management, body))["id"])
        except TenantRefusedError as error:
            if error.error != "stored_otherwise":
                raise
            after = [str(one.get("id")) for one in await self._like(body)]
            for made in after:
                if made not in before:
                    await client_grants.delete(self.management, made)
            raise TenantRefusedError(
                error.error,
                f"{error.what}; it is deleted again",
                "in the Dashboard open the API, Application Access, and authorize the "
                "application under User Access",
                status=error.status,
            ) from error

    async def _like(self, body: Json) -> list[Json]:
        """Return the grants of the same client on the same API."""
        return await client_grants.every(
            self.management, client_id=body["client_id"], audience=body["audience"]
        )

    async def _write_role(self, identity: str, body: Json) -> str:
        if identity:
            await roles.patch(self.management, identity, body)
            return identity
        return str((await roles.create(self.management, body))["id"])

    async def _write_client(
        self, key: str, identity: str, body: Json, standing: Json
    ) -> str:
        """Make or change an application; its secret goes straight to the keeper."""
        api, keeper = self.management, self.keeper
        wants = {name: body.pop(name) for name in _OURS if name in body}
        worker = body.pop(names.WORKER, {})
        if not identity:
            # Not sent a second time when the answer is lost: the next run finds the
            # application by its mark, and makes a new secret.
            made, secret = await clients.register(api, body)
            identity = str(made["client_id"])
            keeper.keep(key, identity, secret if "kept" in wants else None)
        elif body:
            await clients.patch(api, identity, body)
        if "kept" in wants and not keeper.has_secret(key, identity):
            keeper.keep(key, identity, await clients.rotate_secret(api, identity))
        if keeper.client_id(key) != identity:
            keeper.keep(key, identity, None)
        if "worker_key" in wants:
            # The tenant replaces the member as a whole, so it is sent as a whole.
            keys = [{"id": await self._new_key(key, identity)}]
            worker = {**standing.get(names.WORKER, {}), **worker, "credentials": keys}
        if worker != {}:
            await clients.patch(api, identity, {names.WORKER: worker})
        return identity

    async def _new_key(self, key: str, identity: str) -> str:
        """Make a worker's key, and store it before the client may use it."""
        made = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
        public = made.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        added = await clients.add_key(self.management, identity, public.decode())
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.keeper.keep_worker_key(key, added, Secret(pem.decode()))
        return added

    async def _write_connection(
        self, identity: str, body: Json, standing: Json
    ) -> None:
        """Switch a connection's purpose, and let clients use it; nothing else.

        Its options are never sent: they hold the provider's secret.
        """
        before = standing.get("clients", [])
        wanted = body.pop("clients", before)
        if body:
            await connections.patch(self.management, identity, body)
        changed = [(one, True) for one in wanted if one not in before]
        changed += [(one, False) for one in before if one not in wanted]
        for start in range(0, len(changed), _BATCH):
            some = dict(changed[start : start + _BATCH])
            await connections.set_clients(self.management, identity, some)

    async def _write_action(self, script: Script, identity: str, body: Json) -> str:
        """Store an Action, wait until it is built, and deploy it."""
        body.pop("deployed_code", None)
        if identity and body:
            await actions.patch(self.management, identity, body)
        elif not identity:
            trigger = {"id": script.trigger, "version": script.version}
            whole = {**body, "supported_triggers": [trigger]}
            identity = str((await actions.create(self.management, whole))["id"])
        await actions.until_built(self.management, identity)
        await actions.deploy(self.management, identity)
        return identity


def _refused(item: PlanItem, note: str) -> PlanItem:
    return replace(item, step=PlanStep.REFUSED, changes=(), note=note)
