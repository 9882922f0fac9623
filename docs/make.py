"""Write what the documentation takes from the code: ``make docs``.

The tables of ``docs/configuration.md`` come from the classes of the settings: the
fields, their docstrings and their defaults. Those of roles come from the routes' needs,
`operator_api.calls.ACCESS`, and from `broker.authority`.
Outcome words and reasons of ``docs/events.md`` come from `presenters.outcomes`.
``docs/overview.svg`` is drawn here.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from agentvault_tui.broker.authority import DEEDS, LEAST, Need
from agentvault_tui.model.role import Role
from agentvault_tui.operator_api.calls import ACCESS, Access
from agentvault_tui.presenters.outcomes import OUTCOME_WORDS, REASONS
from agentvault_tui.settings import NAMED, Settings

FOLDER = Path(__file__).parent
CONFIGURATION = FOLDER / "configuration.md"
OVERVIEW = FOLDER / "overview.svg"
EVENTS = FOLDER / "events.md"
WITH_ROLES = (FOLDER / "remote.md", FOLDER / "operate.md")
FLAGS = {
    "broker.listen": "agentvault serve --listen",
    "broker.tls": "agentvault serve --tls",
    "broker.tls_cert": "agentvault serve --tls-cert",
    "broker.tls_key": "agentvault serve --tls-key",
    "console.link": "agentvault --link",
}
"""The command line that sets the same, by setting."""
TABLE = re.compile(r"(<!-- settings: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def documented(kind: type) -> dict[str, str]:
    """Return what the docstring below each field of *kind* says, on one line."""
    tree = ast.parse(Path(inspect.getfile(kind)).read_text())
    found = next(
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    texts = {}
    for field, below in zip(found.body, [*found.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            if not isinstance(below, ast.Expr):
                raise TypeError(f"{kind.__name__}.{field.target.id} has no docstring")
            text = " ".join(ast.literal_eval(below.value).split())
            texts[field.target.id] = text.replace("``", "`").replace("|", "\\|")
    return texts


def toml(value: Any) -> str:
    """Return *value* as it stands in ``config.toml``."""
    if isinstance(value, tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, int) or value in {"true", "false"}:
        return str(value).lower()
    return f'"{value}"'


def rows(section: str) -> Iterator[str]:
    """Yield the rows of a section's table."""
    environment = (kind := NAMED.get(section)) is None
    names = (*("setting", "default"), *(["environment"] if environment else ()))
    yield f"| {' | '.join((*names, 'meaning'))} |"
    yield "| " + " | ".join(["---"] * (len(names) + 1)) + " |"
    kind = kind or type(getattr(Settings(), section))
    texts = documented(kind)
    for field in fields(kind):
        told = texts[field.name]
        if flag := FLAGS.get(f"{section}.{field.name}"):
            told += f" Also `{flag}`."
        cells = [f"`{field.name.removesuffix('_')}`", f"`{toml(field.default)}`"]
        if environment:
            cells.append(f"`AGENTVAULT_{section}_{field.name}`".upper())
        yield f"| {' | '.join((*cells, told))} |"


def configuration(page: str) -> str:
    """Return *page* with its tables as the code has them."""
    return TABLE.sub(
        lambda found: "\n".join([found[1], *rows(found[2]), "", found[3]]), page
    )


ROLES = re.compile(r"(<!-- roles: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def named(*needs: Access) -> str:
    """Return the calls with a body that need one of *needs* elsewhere."""
    found = {
        path for (verb, path), one in ACCESS.items() if one in needs and verb == "POST"
    }
    return ", ".join(f"`{path}`" for path in sorted(found))


def elsewhere() -> Iterator[str]:
    """Yield the table of what each role may do on another machine."""
    yield "| role | may |"
    yield "| --- | --- |"
    yield "| none | nothing |"
    yield f"| `viewer` | read: every `GET`, and {named(Access.READ)} |"
    yield (
        f"| `operator` | also tighten: {named(Access.TIGHTEN)}; deny at"
        f" {named(Access.DECIDE)}; at {named(Access.EITHER)} the part that loosens"
        " nothing |"
    )
    yield (
        f"| `approver` | also approve at {named(Access.DECIDE)}, and loosen:"
        f" {named(Access.LOOSEN)}, and the rest of {named(Access.EITHER)}; each time"
        " with a factor proven for exactly that |"
    )
    here = named(Access.MACHINE)
    yield f"| every role | 409, on the broker's machine alone: {here} |"


def at_the_socket() -> Iterator[str]:
    """Yield the table of what each role may do at the socket, once signed in."""
    yield "| role | may |"
    yield "| --- | --- |"
    yield "| `viewer` | see everything |"
    for role in (Role.OPERATOR, Role.APPROVER):
        needs = [need for need in Need if need is not Need.OWN]
        deeds = [DEEDS[need] for need in needs if LEAST[need] is role]
        yield f"| `{role}` | also {'; '.join(deeds)} |"


def roles(page: str) -> str:
    """Return *page* with its tables of roles as the code has them."""
    tables = {"elsewhere": elsewhere, "socket": at_the_socket}
    return ROLES.sub(
        lambda found: "\n".join([found[1], *tables[found[2]](), "", found[3]]), page
    )


WORDS = re.compile(r"(<!-- words: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def worded(page: str) -> str:
    """Return *page* with the tables of outcomes and reasons as every face has them."""
    tables = {
        "outcomes": ("outcome", "means", OUTCOME_WORDS),
        "reasons": ("reason", "in words", REASONS),
    }

    def table(found: re.Match[str]) -> str:
        name, means, texts = tables[found[2]]
        rows = [f"| `{code}` | {text} |" for code, text in texts.items()]
        head = [f"| {name} | {means} |", "| --- | --- |"]
        return "\n".join([found[1], *head, *rows, "", found[3]])

    return WORDS.sub(table, page)


# The card has a background of its own: as readable on a white page as on a dark one.
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1180 804" role="img" \
font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif">
<title>Who holds what in AgentVault</title>
<defs>
<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" \
markerHeight="8" orient="auto-start-reverse"><path d="M0 0 8 4 0 8Z" fill="{accent}"/>\
</marker>
</defs>
<rect width="1180" height="804" rx="14" fill="#10161d"/>
{drawn}
</svg>
"""
ACCENT, EDGE = "#7fd1b9", "#5c6b7a"
BOXES = (
    # left, top, width, height; title; what it holds; what it does or has not
    (
        *(44, 40, 276, 168, "Agent"),
        ["its id, and a secret or key", "short-lived tokens"],
        ["no provider's secret,", "nobody's password"],
    ),
    (
        *(44, 250, 276, 116, "Your API"),
        ["its id, and a secret or key"],
        ["asks about each token"],
    ),
    (
        *(44, 420, 276, 116, "Agent host"),
        ["Claude Code, Codex, Cursor"],
        ["a hook asks before each tool"],
    ),
    (
        *(450, 40, 280, 320, "Broker"),
        [
            "policy and scopes",
            "agents, step-ups, revocations",
            "SHA-256 of its tokens",
            "refresh tokens, sealed",
            "the ledger",
        ],
        [
            "Allows, denies, or escalates.",
            "Each decision is on disk",
            "before its answer leaves.",
            "A revocation takes effect",
            "before its reply.",
        ],
    ),
    (
        *(450, 420, 280, 168, "Gateway"),
        ["services' credentials, sealed", "requests that wait"],
        ["Decides on each request,", "sends it, and records both."],
    ),
    (
        *(450, 640, 280, 116, "Services, MCP servers"),
        ["APIs that others run"],
        ["see no agent's token"],
    ),
    (
        *(860, 40, 280, 116, "Console, commands"),
        ["the last ledger head seen"],
        ["no authority of its own"],
    ),
    (
        *(860, 206, 280, 140, "Person, with a phone"),
        ["password, second factor"],
        ["opens a link, and approves", "with a passkey or a code"],
    ),
    (
        *(860, 402, 280, 140, "Tenant"),
        ["people, factors, roles", "providers' tokens"],
        ["embedded, or Auth0"],
    ),
    (860, 640, 280, 82, "Provider", ["a person's account"], []),
)
ARROWS = (
    # path, with an arrow at its start too if it begins with "<"; x, y, anchor, words
    ("M324 92H442", (383, 82, "middle", "scope, action")),
    ("M446 150H328", (387, 140, "middle", "token, refusal")),
    ("M176 212V242", (190, 234, "start", "with a token")),
    ("M324 308H442", (352, 298, "start", "introspects")),
    ("M324 190H338V450H442", (352, 440, "start", "requests")),
    ("M324 500H442", (352, 490, "start", "tool calls")),
    ("<M590 368V412", (604, 396, "start", "each decision")),
    ("M590 592V632", (604, 618, "start", "with the credential")),
    (
        "<M738 98H852",
        (795, 88, "middle", "Unix socket"),
        (795, 122, "middle", "watch, decide"),
    ),
    ("M1000 202V164", (1014, 188, "start", "keys")),
    ("M1000 350V394", (1014, 378, "start", "approves")),
    (
        "<M738 330H795V440H852",
        (795, 292, "middle", "device login,"),
        (795, 318, "middle", "ID token"),
        (795, 466, "middle", "exchanges"),
    ),
    ("<M1000 550V632", (1014, 596, "start", "connected account")),
    ("M44 128H20V782H1000V730", (700, 774, "middle", "calls, with a provider's token")),
)


def overview() -> str:
    """Return the picture of who holds what, and who speaks to whom."""
    drawn = []
    for left, top, width, height, title, holds, does in BOXES:
        edge = ACCENT if title in {"Broker", "Gateway"} else EDGE
        drawn.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="8" '
            f'fill="#1b242e" stroke="{edge}" stroke-width="2"/>'
        )
        bold = 'font-size="19" font-weight="600"'
        drawn.append(words(left + 18, top + 32, title, "#f0f4f8", bold))
        drawn += [
            words(left + 18, top + 62 + 25 * row, f"• {text}", "#c3ced9")
            for row, text in enumerate(holds)
        ]
        below = top + 70 + 25 * len(holds)
        drawn += [
            words(left + 18, below + 25 * row, text, ACCENT)
            for row, text in enumerate(does)
        ]
    for path, *labels in ARROWS:
        both = ' marker-start="url(#head)"' if path.startswith("<") else ""
        drawn.append(
            f'<path d="{path.removeprefix("<")}" fill="none" stroke="{ACCENT}" '
            f'stroke-width="2" marker-end="url(#head)"{both}/>'
        )
        drawn += [
            words(x, y, text, "#ffffff", f'font-size="16" text-anchor="{anchor}"')
            for x, y, anchor, text in labels
        ]
    return SVG.format(accent=ACCENT, drawn="\n".join(drawn))


def words(x: int, y: int, text: str, colour: str, style: str = 'font-size="16"') -> str:
    """Return one line of text."""
    return f'<text x="{x}" y="{y}" fill="{colour}" {style}>{escape(text)}</text>'


if __name__ == "__main__":
    OVERVIEW.write_text(overview())
    CONFIGURATION.write_text(configuration(CONFIGURATION.read_text()))
    EVENTS.write_text(worded(EVENTS.read_text()))
    for page in WITH_ROLES:
        page.write_text(roles(page.read_text()))
