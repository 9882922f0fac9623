"""Makes once in a process what thousands of tests need and none of them changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from copy import copy
from functools import cache, partial
from typing import Any

import jinja2
import pytest
from httpx._transports import default as transports
from starlette import routing
from support import prompt_jobs
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

from agentvault_tui.policy import Policy, PolicyTexts
from agentvault_tui.policy.engine import SHIPPED


@pytest.fixture(scope="session", autouse=True)
def _policy_authorities_and_styles() -> Iterator[None]:
    """Parse the shipped policy once (40 ms), and an app's styles (20 ms).

    Compile the templates of pages (10 ms each) and the paths of routes once.
    Read certifi's authorities once (15 ms). Let no job of a broker starve.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Policy, "of", policies(Policy.of))
        made = _contexts(transports.create_ssl_context)
        patch.setattr(transports, "create_ssl_context", made)
        patch.setattr(Stylesheet, "_parse_rules", _rules(Stylesheet._parse_rules))
        patch.setattr(routing, "compile_path", cache(routing.compile_path))
        patch.setattr(jinja2.Environment, "compile", templates())
        patch.setattr(asyncio, "create_subprocess_exec", prompt_jobs.start)
        yield


def policies(parse: Any) -> Any:
    """Wrap `Policy.of`, so that the shipped policy is parsed once."""
    shipped = cache(partial(parse, PolicyTexts(), (SHIPPED,) * 3))

    def of(texts: PolicyTexts, *sources: Any, **more: Any) -> Policy:
        """Return a copy of one parsed policy where *texts* are the shipped ones."""
        if texts != PolicyTexts():
            return parse(texts, *sources, **more)
        policy = copy(shipped())
        policy.seen = sources[1] if len(sources) > 1 else more.get("seen")
        return policy

    return of


def templates() -> Any:
    """Wrap `jinja2.Environment.compile`: all tenants have the same environment."""
    parse, shared = jinja2.Environment.compile, dict[Any, Any]()

    def compiled(self: jinja2.Environment, *template: Any) -> Any:
        """Return the same code wherever text and name of a template are the same."""
        if template not in shared:
            shared[template] = parse(self, *template)
        return shared[template]

    return compiled


def _contexts(make: Any) -> Any:
    shared: dict[Any, Any] = {}

    def create(verify: Any = True, cert: Any = None, trust_env: bool = True) -> Any:
        """Return one context wherever the same authorities are trusted."""
        if verify is not True or cert:
            return make(verify=verify, cert=cert, trust_env=trust_env)
        files = map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR"))
        named = tuple(files) if trust_env else ()
        if named not in shared:
            shared[named] = make(trust_env=trust_env)
        return shared[named]

    return create


def _rules(parse: Any) -> Any:
    shared: dict[Any, list[RuleSet]] = {}

    def parsed(sheet: Stylesheet, css: str, **more: Any) -> list[RuleSet]:
        """Return the same rules wherever their text and its variables are the same.

        A style sheet of Textual keeps them so for as long as its app runs.
        """
        key = (css, *sorted(more.items()), frozenset(sheet._variables.items()))
        if key not in shared:
            shared[key] = parse(sheet, css, **more)
        return shared[key]

    return parsed
