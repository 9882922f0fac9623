"""Reads one activation page: its step, its message, its forms and its marked values."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass(slots=True)
class Form:
    """A form: where it goes, and what its inputs hold already."""

    action: str
    fields: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(slots=True)
class Page:
    """What a program needs of a page."""

    step: str = ""
    error: str = ""
    message: str = ""
    forms: dict[str, Form] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    parameters: list[tuple[str, str, str]] = field(default_factory=list)
    """Names, values, and whether a value is ``text`` or ``json``."""
    others: list[tuple[str, str, str]] = field(default_factory=list)
    """Likewise, of what else a resource server will read."""


def read_page(html: str) -> Page:
    """Read *html*; what is not marked is passed over."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.page


class _Reader(HTMLParser):
    """Collects the text of each element that has a mark, from its start to its end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._form: Form | None = None
        self._mark: tuple[str, str] | None = None
        self._tag = ""
        self._depth = 0
        self._text: list[str] = []
        self._name = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the page's step, a form or field of it, and where marked text begins."""
        held = {name: value or "" for name, value in attrs}
        if tag == "main":
            self.page.step = held.get("data-step", "")
            self.page.error = held.get("data-error", "")
        elif tag == "form" and "id" in held:
            self._form = Form(held.get("action", ""))
            self.page.forms[held["id"]] = self._form
        elif tag == "input" and self._form is not None and held.get("name"):
            self._form.fields[held["name"]] = held.get("value", "")
        if self._mark is not None:
            self._depth += tag == self._tag
            return
        for kind in ("data-field", "data-parameter", "data-other", "data-message"):
            if kind in held:
                self._mark, self._tag = (kind, held[kind]), tag
                self._depth, self._text = 1, []

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        if self._mark is None or tag != self._tag:
            return
        self._depth -= 1
        if self._depth == 0:
            self._keep(*self._mark, "".join(self._text))
            self._mark = None

    def handle_data(self, data: str) -> None:
        if self._mark is not None:
            self._text.append(data)

    def _keep(self, kind: str, name: str, text: str) -> None:
        if kind == "data-field":
            self.page.values[name] = text
        elif kind == "data-message":
            self.page.message = self.page.message or " ".join(text.split())
        elif name == "name":
            self._name = text
        else:
            page = self.page
            rows = page.others if kind == "data-other" else page.parameters
            rows.append((self._name, text, name))
