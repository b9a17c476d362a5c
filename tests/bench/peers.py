"""What we are measured against, served by the same server as the site."""

from collections.abc import Callable

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

TABLE = "CREATE TABLE IF NOT EXISTS bench_peer (id bigserial PRIMARY KEY, body bytea NOT NULL)"
CONSTANT = b"x" * 640  # about as many bytes as meter.json has


class InsertFirst:
    """The view that inserts one row, where the site has its webhook's view: before the middleware of pages."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return insert(request) if request.path == "/peer/insert/" else self.get_response(request)


def insert(request: HttpRequest) -> HttpResponse:
    """Insert one row, commit, answer."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bench_peer (body) VALUES (%s)", [request.body])
    return HttpResponse(b"", content_type="text/plain")


def constant(request: HttpRequest) -> HttpResponse:
    """The same bytes, always."""
    return HttpResponse(CONSTANT, content_type="application/json")


urlpatterns = [
    path("peer/constant/", constant),
    path("", include("supportsite.urls")),
]
