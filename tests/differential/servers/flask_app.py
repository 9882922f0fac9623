"""Flask on waitress: ``args``, ``form``, ``files``, ``get_json`` and ``values``."""

from __future__ import annotations

from flask import Flask, request
from report import emit, file_entry, listed, sha256, watched, wsgi_headers
from waitress import create_server
from werkzeug.exceptions import HTTPException

app = Flask(__name__)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"]


@app.get("/gets/<name>")
def get(name: str) -> str:
    """Name the route that a HEAD request is of too; `read` answers before it runs."""
    return name


@app.before_request
def read() -> tuple[str, int]:
    """Report what Flask read; answer 400 where it could not read the body."""
    raw = request.get_data(cache=True, parse_form_data=False)
    kind, document, error = None, None, None
    form: list[list[str]] = []
    files: list[list[object]] = []
    try:
        if raw and request.is_json:
            kind, document = "json", request.get_json()
        elif raw and request.mimetype == "application/x-www-form-urlencoded":
            kind, form = "form", listed(request.form.items(multi=True))
        elif raw and request.mimetype == "multipart/form-data":
            kind, form = "multipart", listed(request.form.items(multi=True))
            files = [
                file_entry(name, one.filename or "", one.mimetype, one.read())
                for name, one in request.files.items(multi=True)
            ]
    except HTTPException as failure:
        error = str(failure)
    emit(
        {
            "port": int(request.environ["REMOTE_PORT"]),
            "method": request.method,
            "path": request.path,
            "query": listed(request.args.items(multi=True)),
            "headers": wsgi_headers(request.environ),
            "length": len(raw),
            "sha256": sha256(raw),
            "kind": kind,
            "json": document,
            "form": form,
            "files": files,
            "watched": watched(request.values, document),
            "error": error,
            "handler": request.url_rule.rule if request.url_rule else None,
        }
    )
    return "read", 400 if error else 200


if __name__ == "__main__":
    server = create_server(app, host="127.0.0.1", port=0, threads=4)
    emit({"listening": server.effective_port})
    server.run()
