"""dj-stripe's own addresses, and the callback that makes nothing of an event."""

from typing import Any

from django.urls import include, path


def nothing(event: Any, api_key: str = "") -> None:
    return None


urlpatterns = [path("stripe/", include("djstripe.urls", namespace="djstripe"))]
