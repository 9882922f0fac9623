"""FastAPI on uvicorn: ``query_params``, ``json()`` and ``form()``."""

from __future__ import annotations

import socket
from email.message import Message
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from report import emit, file_entry, listed, sha256, watched
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

app = FastAPI(openapi_url=None)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"]


@app.api_route("/{rest:path}", methods=METHODS)
async def read(request: Request) -> Response:
    """Report what FastAPI read; answer 400 where it could not read the body."""
    raw = await request.body()
    kind, document, error = None, None, None
    form: list[list[Any]] = []
    files: list[list[object]] = []
    stated = Message()
    stated["content-type"] = request.headers.get("content-type", "none/none")
    subtype = stated.get_content_subtype()
    try:
        if not raw:
            pass
        elif stated.get_content_maintype() == "application" and (
            subtype == "json" or subtype.endswith("+json")
        ):
            # As fastapi.routing decides whether a body is JSON.
            kind, document = "json", await request.json()
        elif subtype in {"x-www-form-urlencoded", "form-data"}:
            kind = "form" if subtype == "x-www-form-urlencoded" else "multipart"
            found = (await request.form()).multi_items()
            form = listed((n, v) for n, v in found if isinstance(v, str))
            files = [
                file_entry(n, v.filename or "", v.content_type or "", await v.read())
                for n, v in found
                if isinstance(v, UploadFile)
            ]
    except (HTTPException, ValueError) as failure:
        error = repr(failure)
    client = request.client
    emit(
        {
            "port": client.port if client else 0,
            "method": request.method,
            "path": request.scope["path"],
            "query": listed(request.query_params.multi_items()),
            "headers": {
                name: ", ".join(request.headers.getlist(name))
                for name in request.headers
            },
            "length": len(raw),
            "sha256": sha256(raw),
            "kind": kind,
            "json": document,
            "form": form,
            "files": files,
            "watched": watched(dict(request.query_params), dict(form), document),
            "error": error,
        }
    )
    return Response("read", 400 if error else 200)


if __name__ == "__main__":
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    emit({"listening": bound.getsockname()[1]})
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[bound])
