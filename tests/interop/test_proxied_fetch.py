"""undici, which is node's fetch, unmodified behind the forward proxy."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

from support.gateway_stand import SECRET, Upstream, standing
from support.patience import PATIENT
from support.peers import INTEROP, NODE, with_node
from support.tls_front import trusted

from agentvault_tui.home import Home
from agentvault_tui.web.local_ca import CaFiles

SERVICE = """
[credential]
kind = "bearer"
secret = "key"
[[routes]]
method = "GET"
path = "/{rest*}"
scope = "write:calendar"
"""


@with_node("undici")
async def test_fetch_reaches_services_of_https_and_of_http(short: Path) -> None:
    """It sends CONNECT for both; each request is a call with the credential."""
    other = Home.locate(short / "tls")
    other.prepare()
    tls, _, _ = trusted(other)
    secure = Upstream()
    await secure.start(tls.context())
    async with standing(short) as stand:
        broker = stand.bench.broker
        gateway = replace(broker.settings.gateway, proxy="127.0.0.1:0")
        broker.settings = replace(broker.settings, gateway=gateway)
        line = await stand.gateway.listen(stand.server, stand.listener)
        await stand.secret()
        origin = f"https://localhost:{secure.port}"
        ca = f'ca_file = "{CaFiles.of(other).ca}"\n'
        head = f'origin = "{origin}"\nallow_private = true\n{ca}'
        await stand.service(SERVICE, head=head)
        await stand.service(SERVICE, name="plain")
        agent = await stand.agent("write:calendar")
        token = await stand.token(agent, "write:calendar")
        proxy = str(line["proxy_url"]).replace("//", f"//agent:{token}@")
        variables = {
            "HTTP_PROXY": proxy,
            "HTTPS_PROXY": proxy,
            "NO_PROXY": "",
            "NODE_EXTRA_CA_CERTS": str(line["ca_file"]),
        }
        plain = f"http://127.0.0.1:{stand.upstream.port}"
        process = await asyncio.create_subprocess_exec(
            *(str(NODE), "fetch.mjs", f"{origin}/a", f"{origin}/b", f"{plain}/c"),
            cwd=INTEROP,
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **variables},
        )
        async with asyncio.timeout(PATIENT):
            told, _ = await process.communicate()
        answers = [json.loads(one) for one in told.splitlines()]
        assert answers == [{"status": 200, "body": "ok"}] * 3
        asked = [*secure.received, *stand.upstream.received]
        assert [one.target for one in asked] == ["/a", "/b", "/c"]
        assert all(o.header("authorization") == f"Bearer {SECRET}" for o in asked)
        assert len(await stand.records()) == 6
    await secure.stop()
