"""What every template may use."""

from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, object]:
    """The publisher's name, and whether money moves."""
    return {"site_name": settings.SITE_NAME, "livemode": settings.LIVEMODE, "sandbox": settings.SANDBOX}
