"""What we are measured against, served by the same server as the site."""

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

TABLE = "CREATE TABLE IF NOT EXISTS bench_peer (id bigserial PRIMARY KEY, body bytea NOT NULL)"
CONSTANT = b"x" * 640  # about as many bytes as meter.json has


@csrf_exempt
def insert(request: HttpRequest) -> HttpResponse:
    """Insert one row, commit, answer."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bench_peer (body) VALUES (%s)", [request.body])
    return HttpResponse(b"", content_type="text/plain")


def constant(request: HttpRequest) -> HttpResponse:
    """The same bytes, always."""
    return HttpResponse(CONSTANT, content_type="application/json")


urlpatterns = [
    path("peer/insert/", insert),
    path("peer/constant/", constant),
    path("", include("supportsite.urls")),
]
