"""Everything AgentVault raises on purpose, as one tree.

* AgentVaultError
  * UsageError                the request makes no sense (exit 2)
    * SettingsError           a setting is unknown, malformed or out of bounds
    * NotConfinedError        a layer of a command's confinement is missing
  * NotFoundError             no such agent, step-up or user (exit 4)
  * RefusedError              it ran and the answer is no (exit 1)
    * ConflictError           someone or something was first
    * FactorRefusedError      a factor typed at a console is missing or wrong
    * ForbiddenError          the caller lacks the role it needs
  * UnreachableError          no broker answers (exit 3)
  * PolicyError               a policy or catalogue cannot be put in effect
  * ServiceError              a service's file cannot be put in effect
  * SealedError               the encrypted value does not open with the keys here
    * NotForOriginError       a secret is not for where it would be sent
  * UnreadableRequestError    a request that programs read in several ways
  * ShareTakenError           an agent has its share of the places to wait in
  * TooFastError              an agent is permitted more a second than it may be
  * LedgerError
    * LedgerUnwritableError   nothing can be recorded, so nothing is issued
      * StoreAwayError        the team's store answers nothing, or no primary does
      * OutcomeUnknownError   it is unknown whether this was recorded
    * LedgerBusyError         the queue is full: try again
    * OvertakenError          another broker changed the basis of a decision
    * LedgerDamagedError      the record is not the one that was written
    * HomeInUseError          another broker has this home
  * TenantError
    * TenantUnreachableError  the tenant is down, slow or answers rubbish
      * TenantBusyError       the tenant's rate limit is spent: try again later
    * TenantRefusedError      the tenant answered no, with its error code
      * TenantCredentialError it does not accept the credential or token we sent
      * TenantScopeError      the credential may not do that: scopes are missing
      * TenantNotFoundError   the tenant has no such object
      * TenantConflictError   the tenant has such an object already
    * IdentityError           an ID token proves less than is needed

Every error has a message and a remedy: CLI and console print
[`AgentVaultError.diagnosis`][] and nothing else.
"""

from __future__ import annotations

from typing import ClassVar


class AgentVaultError(Exception):
    """Anything that went wrong in a way we foresaw."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        """Set the message in one sentence, *what*, and the *remedy* if there is one."""
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def diagnosis(self) -> str:
        """Return one line: the message, then the remedy."""
        if not self.remedy:
            return self.what
        # A tenant's own sentence, quoted at the end of ours, brings its full stop.
        return f"{self.what.removesuffix('.')}: {self.remedy}"


class UsageError(AgentVaultError):
    """The request makes no sense."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown, malformed or out of bounds."""


class NotConfinedError(UsageError):
    """A command was not started, because a layer of its confinement is missing."""


class NotFoundError(AgentVaultError):
    """There is no such thing."""

    exit_code = 4


class RefusedError(AgentVaultError):
    """It ran, and the answer is no."""


class ConflictError(RefusedError):
    """Someone or something was first."""


class ForbiddenError(RefusedError):
    """The caller lacks the role it needs.

    Attributes:
        role: the role that is needed.
    """

    def __init__(self, role: str, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.role = role


class FactorRefusedError(RefusedError):
    """A factor that was typed at a console is missing or wrong.

    Attributes:
        factor: the tenant's stable code, such as ``wrong_otp``.
    """

    def __init__(self, factor: str, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.factor = factor


class UnreachableError(AgentVaultError):
    """No broker answers."""

    exit_code = 3


class PolicyError(AgentVaultError):
    """A policy or scope catalogue cannot be put in effect."""


class ServiceError(AgentVaultError):
    """A file that describes services, tools or alerts cannot be put in effect."""


class SealedError(AgentVaultError):
    """A value cannot be decrypted, or encrypted: the key is not here.

    Attributes:
        code: the error code for clients.
    """

    code = "sealed"


class NotForOriginError(SealedError):
    """A secret is not opened: where it would be sent is not among its origins."""

    code = "secret_not_for_origin"


class UnreadableRequestError(AgentVaultError):
    """A request that is ambiguous, or that its route does not take.

    Attributes:
        code: the error code for the agent, such as ``bad_path``.
        status: the HTTP status.
        more: further members of the answer.
    """

    def __init__(
        self, code: str, what: str, *, status: int = 400, **more: object
    ) -> None:
        super().__init__(what)
        self.code = code
        self.status = status
        self.more = more


class LedgerError(AgentVaultError):
    """The ledger cannot be written or read."""


class LedgerUnwritableError(LedgerError):
    """Nothing can be recorded, so nothing is issued."""


class StoreAwayError(LedgerUnwritableError):
    """The team's store cannot be used now; nothing of the request was done."""


class OutcomeUnknownError(LedgerUnwritableError):
    """The team's store was lost while it committed; a committed grant is ended.

    Attributes:
        decision_id: of the decision, where one was to be recorded: to look it up later.
    """

    def __init__(
        self, what: str, remedy: str = "", *, decision_id: str | None = None
    ) -> None:
        super().__init__(what, remedy)
        self.decision_id = decision_id


class LedgerBusyError(LedgerError):
    """The queue before the writer is full."""


class ShareTakenError(AgentVaultError):
    """An agent has its share of some bounded places, and no place is unused."""


class TooFastError(AgentVaultError):
    """An agent is permitted more a second than it may be: nothing was decided."""


class OvertakenError(LedgerError):
    """Another broker, or a revocation, changed the basis of a commit.

    Nothing of the commit was written. The granting side decides again, from the present
    state; after a bounded number of times it answers that it is busy.
    """


class LedgerDamagedError(LedgerError):
    """The record is not the one that was written."""


class HomeInUseError(LedgerError):
    """Another broker has this home."""


class TenantError(AgentVaultError):
    """The tenant did not help."""


class TenantUnreachableError(TenantError):
    """The tenant is down, slow, or answers rubbish."""


class TenantBusyError(TenantUnreachableError):
    """The tenant's rate limit is spent.

    Attributes:
        retry_after: seconds until it is worth asking again, as far as it said.
    """

    def __init__(self, what: str, remedy: str = "", *, retry_after: float = 0) -> None:
        super().__init__(what, remedy)
        self.retry_after = retry_after


class TenantRefusedError(TenantError):
    """The tenant answered no.

    Attributes:
        error: its own stable code, such as ``access_denied``; displayable.
        status: the HTTP status, 0 when no answer of HTTP's was refused.
    """

    def __init__(
        self, error: str, what: str, remedy: str = "", *, status: int = 0
    ) -> None:
        super().__init__(what, remedy)
        self.error = error
        self.status = status


class TenantCredentialError(TenantRefusedError):
    """The tenant does not accept the credential or token we sent."""


class TenantScopeError(TenantRefusedError):
    """The credential may not do that.

    Attributes:
        scopes: the scopes of which one is needed, as far as the tenant named them.
    """

    def __init__(
        self,
        error: str,
        what: str,
        remedy: str = "",
        *,
        status: int = 403,
        scopes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(error, what, remedy, status=status)
        self.scopes = scopes


class TenantNotFoundError(TenantRefusedError):
    """The tenant has no such object."""


class TenantConflictError(TenantRefusedError):
    """The tenant has such an object already."""


class IdentityError(TenantError):
    """An ID token proves less than the decision needs.

    Attributes:
        reason: a stable code: ``signature``, ``claims``, ``no_mfa``, ``stale``,
            ``not_an_approver``.
    """

    def __init__(self, reason: str, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.reason = reason
