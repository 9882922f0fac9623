"""Walks the activation pages as a browser would, and keeps every answer."""

from __future__ import annotations

import httpx
from auth0_double.running import TenantThread
from support.patience import PATIENT

from agentvault_tui.tenant.device_page_client import TenantPage, read_page
from agentvault_tui.tenant.users import NewUser


class Browser:
    """Sends what a browser sends, and keeps every page for looking at."""

    def __init__(self, tenant: TenantThread) -> None:
        self.tenant = tenant
        self.http = httpx.Client(
            base_url=tenant.issuer, trust_env=False, timeout=PATIENT
        )
        self.answers: list[httpx.Response] = []

    def get(self, path: str = "activate", **query: str) -> TenantPage:
        return self._keep(self.http.get(path, params=query))

    def send(self, page: TenantPage, form: str, **fields: str) -> TenantPage:
        found = page.forms[form]
        return self._keep(
            self.http.post(
                found.action,
                data={**found.fields, **fields},
                headers={"origin": self.tenant.issuer.rstrip("/")},
            )
        )

    def _keep(self, answer: httpx.Response) -> TenantPage:
        self.answers.append(answer)
        return read_page(answer.text)

    def details(self, user_code: str) -> TenantPage:
        return self.send(self.get(user_code=user_code), "code")

    def confirm_page(self, user_code: str, user: NewUser) -> TenantPage:
        page = self.send(self.details(user_code), "continue")
        page = self.send(page, "sign-in", user=user.user.name, password=user.password)
        return self.send(page, "one-time-code", otp=self.tenant.otp(user))
