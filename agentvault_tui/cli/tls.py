"""``agentvault tls``: certificates of an authority of the home's own."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

import click

from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock, iso
from agentvault_tui.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from agentvault_tui.web.local_ca import CaFiles
    from agentvault_tui.web.tls import TlsFiles

_TRUST: Final = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
"""The variables of requests, OpenSSL and httpx, and Node."""


@group("tls", on_home=True, example="agentvault tls init")
def tls() -> None:
    """Make certificates for https, with an authority of this home directory."""


@tls.command("init", example="agentvault tls init --name 127.0.0.2")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="A further address or DNS name for the certificate; repeat it.",
)
@click.option(
    "--new-ca", is_flag=True, help="Replace the authority; agents need the new one."
)
@click.option(
    "--public",
    is_flag=True,
    help="For the `listen` of operators and tenant, as tls/cert.pem and tls/key.pem;"
    " the one for agents is unchanged.",
)
@pass_session
def init(
    session: CliSession, names: tuple[str, ...], new_ca: bool, public: bool
) -> None:
    """Make a certificate for the agents' listener, or renew it.

    The first time it also makes an authority, which only --new-ca replaces. A running
    broker that uses https uses the new certificate from the next connection on. A
    broker that uses http for agents uses only https from its next start on.
    """
    from agentvault_tui.web.local_ca import CaFiles, renew

    session.home.prepare()
    files = CaFiles.of(session.home, public=public)
    first = not files.leaf.cert.exists()
    if public and first and not names:
        raise UsageError(
            "a certificate for other machines needs the name that they use",
            "agentvault tls init --public --name NAME",
        )
    now = SystemClock().now()
    made = renew(session.home, names, now=now, new_ca=new_ca, public=public)
    shape = _describe(files.leaf, files) if public else _shape(session)
    if session.out.print_json({"new_ca": made, **shape}):
        return
    _print(session.out, shape)
    if public:
        session.out.note(
            'name it in config.toml: tls_cert = "tls/cert.pem", tls_key = "tls/key.pem"'
        )
        session.out.note(
            "browsers and phones have to trust its authority: `agentvault tls show"
            " --ca` prints it for a file that you install there"
        )
        return
    _print_environment(session.out, shape)
    if first:
        session.out.note(
            "agents are served at https:// alone from the next start of `agentvault"
            " serve` on: change http:// in their settings then, or keep it with"
            " [broker] tls = false"
        )


@tls.command("show", example="agentvault tls show")
@click.option("--ca", is_flag=True, help="Print the authority's certificate (PEM).")
@pass_session
def show(session: CliSession, ca: bool) -> None:
    """Show the certificate for agents, its end, and the authority to trust."""
    from agentvault_tui.web.local_ca import CaFiles
    from agentvault_tui.web.tls import pem_of

    if ca:
        # For a file of the agents' own: other users cannot read in this home.
        for line in pem_of(CaFiles.of(session.home).ca).splitlines():
            session.out.line(line)
        return
    shape = _shape(session)
    if not session.out.print_json(shape):
        _print(session.out, shape)
        _print_environment(session.out, shape)


def _shape(session: CliSession) -> dict[str, object]:
    """Describe the certificate that `serve` would show."""
    from agentvault_tui.web.local_ca import CaFiles, chosen_files

    files = chosen_files(session.home, session.settings.broker)
    if files is None:
        raise NotFoundError(
            "the agents' listener uses plain http", "agentvault tls init"
        )
    return _describe(files, CaFiles.of(session.home))


def _describe(files: TlsFiles, own: CaFiles) -> dict[str, object]:
    from agentvault_tui.web.tls import read_certificate

    certificate = read_certificate(files.cert)
    ours = files == own.leaf
    return {
        "cert": str(files.cert),
        "key": str(files.key),
        "names": list(certificate.names),
        "issuer": certificate.issuer,
        "not_before": iso(certificate.starts),
        "not_after": iso(certificate.ends),
        "sha256": certificate.fingerprint,
        "ca": str(own.ca) if ours else None,
        "ca_not_after": iso(read_certificate(own.ca).ends) if ours else None,
        "environment": dict.fromkeys(_TRUST, str(own.ca)) if ours else {},
    }


def _print(out: Output, shape: dict[str, Any]) -> None:
    rows = [
        ("certificate", out.cell(shape["cert"], "strong", 500)),
        ("for", out.cell(", ".join(shape["names"]), limit=500)),
        ("ends", out.cell(shape["not_after"][:19] + "Z")),
        ("made by", out.cell(shape["issuer"], limit=200)),
        ("sha-256", out.cell(shape["sha256"], limit=64)),
    ]
    if shape["ca"]:
        rows.append(("authority", out.cell(shape["ca"], limit=500)))
        rows.append(("it ends", out.cell(shape["ca_not_after"][:19] + "Z")))
    out.fields(rows)


def _print_environment(out: Output, shape: dict[str, Any]) -> None:
    """Print the variables an agent needs, ready to paste."""
    if not shape["environment"]:
        return
    out.line()
    for name, path in shape["environment"].items():
        out.line(f"export {name}={shlex.quote(path)}")
    out.line()
    out.note("agents of other users: `agentvault tls show --ca` prints it for a file")
    out.note(
        "the first two take the place of an agent's own list: if it also calls the "
        "internet, name a file that holds both"
    )
