"""Django on gunicorn: ``GET``, ``POST``, ``FILES`` and ``body``."""

from __future__ import annotations

import json
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.http.request import RawPostDataException
from gunicorn.app.base import BaseApplication
from report import emit, file_entry, listed, sha256, watched, wsgi_headers

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=(),
    SECRET_KEY="differential",
    MIDDLEWARE=[f"{__name__}.Reading"],
    USE_TZ=True,
)
_UNREADABLE = (
    BadRequest,
    MultiPartParserError,
    RawPostDataException,
    SuspiciousOperation,
    ValueError,
)


class Reading:
    """A middleware that reports what Django read, and answers."""

    def __init__(self, _: Any) -> None:
        pass

    def __call__(self, request: HttpRequest) -> HttpResponse:
        raw = request.body
        kind, document, error = None, None, None
        form: list[list[str]] = []
        files: list[list[object]] = []
        try:
            if not raw:
                pass
            elif request.content_type == "application/x-www-form-urlencoded":
                kind = "form"
                # Django fills POST for this method alone (request._load_post_and_files)
                request.method, method = "POST", request.method
                form = _pairs(request.POST)
                request.method = method
            elif request.content_type == "multipart/form-data":
                kind = "multipart"
                request.method, method = "POST", request.method
                form = _pairs(request.POST)
                request.method = method
                files = [
                    file_entry(name, one.name, one.content_type, one.read())
                    for name, several in request.FILES.lists()
                    for one in several
                ]
            elif request.content_type.split(";")[0].endswith(("/json", "+json")):
                kind, document = "json", json.loads(raw)
        except _UNREADABLE as failure:
            error = str(failure)
        emit(
            {
                "port": int(request.META["REMOTE_PORT"]),
                "method": request.method,
                "path": request.path_info,
                "query": _pairs(request.GET),
                "headers": wsgi_headers(request.META),
                "length": len(raw),
                "sha256": sha256(raw),
                "kind": kind,
                "json": document,
                "form": form,
                "files": files,
                "watched": watched(request.GET.dict(), dict(form), document),
                "error": error,
            }
        )
        return HttpResponse("read", status=400 if error else 200)


def _pairs(found: Any) -> list[list[str]]:
    return listed((name, value) for name, all_ in found.lists() for value in all_)


class Server(BaseApplication):
    """One worker of gunicorn with four threads."""

    def load_config(self) -> None:
        self.cfg.set("bind", "127.0.0.1:0")
        self.cfg.set("workers", 1)
        self.cfg.set("worker_class", "gthread")
        self.cfg.set("threads", 4)
        self.cfg.set("loglevel", "critical")
        self.cfg.set("graceful_timeout", 1)
        self.cfg.set("when_ready", _ready)

    def load(self) -> WSGIHandler:
        django.setup(set_prefix=False)
        return WSGIHandler()


def _ready(arbiter: Any) -> None:
    emit({"listening": arbiter.LISTENERS[0].sock.getsockname()[1]})


if __name__ == "__main__":
    Server().run()
