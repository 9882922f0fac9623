"""Settings of the documentation's site, which ``make docs`` builds with Sphinx."""

import runpy
from pathlib import Path

from sphinx.application import Sphinx

project = "AgentVault"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "AgentVault"
html_show_sphinx = False
html_copy_source = False
exclude_patterns = ["_site"]
myst_heading_anchors = 4
# Cedar has no lexer, and some requests are shortened: such blocks are plain text.
suppress_warnings = ["misc.highlighting_failure"]


def link_copies(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Point at the site's copies of pages that have no source in docs/."""
    for name in ("CHANGELOG.md", "SECURITY.md"):
        source[0] = source[0].replace(f"](../{name}", f"](generated/{name.lower()}")


def setup(app: Sphinx) -> None:
    """Write the generated pages before Sphinx reads any."""
    docs = Path(app.srcdir)
    runpy.run_path(str(docs / "reference.py"))["write_references"](docs)
    app.connect("source-read", link_copies)
