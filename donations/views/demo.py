"""An article to show the bar on; with DEBUG only."""

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from donations import embeds
from donations.selectors.bar import UnknownCampaign, bar


@require_safe
def article(request: HttpRequest) -> HttpResponse:
    """An invented article with the bar, and the button above and below the text."""
    if not settings.DEBUG:
        raise Http404
    try:
        shown = bar(None, None)
    except UnknownCampaign as error:
        raise Http404("Make a campaign first: manage.py demo") from error
    return render(request, "donations/article.html", {"bar": embeds.context(shown)})
