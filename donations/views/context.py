"""What every template may use."""

from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest

from donations.selectors.health import Trouble, troubles_seen


@dataclass(frozen=True, slots=True)
class BannerLine:
    """A trouble as a user may see it; without a path where they may not go there."""

    words: str
    remedy: str
    path: str


def site(request: HttpRequest) -> dict[str, object]:
    """The publisher's name, whether money moves, and what needs a person: asked for by the staff's pages alone."""
    return {
        "site_name": settings.SITE_NAME,
        "livemode": settings.LIVEMODE,
        "sandbox": settings.SANDBOX,
        "banner": _banner_of(request),
    }


def _banner_of(request: HttpRequest) -> Callable[[], list[BannerLine]]:
    def lines() -> list[BannerLine]:
        user = getattr(request, "user", AnonymousUser())
        return banner(user, troubles_seen()) if may_see_banner(user) else []

    return lines


def may_see_banner(user: User | AnonymousUser) -> bool:
    """Whether they see the dashboard, and so what is wrong with it."""
    return bool(getattr(user, "is_staff", False)) and user.has_perm("donations.view_monthtotal")


def banner(user: User | AnonymousUser, troubles: list[Trouble]) -> list[BannerLine]:
    """What needs a person, with a link for those who may follow it."""
    return [
        BannerLine(trouble.words, trouble.remedy, trouble.path)
        if user.has_perm(trouble.permission)
        else BannerLine(trouble.words, "Tell somebody with the right to look into it.", "")
        for trouble in troubles
    ]
