"""The bar on other sites: a frame, its figures, and the snippet that shows it."""

from csp.decorators import csp_replace
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, JsonResponse
from django.shortcuts import render
from django.views.decorators.clickjacking import xframe_options_exempt
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from donations import embeds
from donations.embeds import Rendered, Shape
from donations.periods import Month
from donations.selectors.bar import Fresh, UnknownCampaign, bar

NOTHING_TO_RUN = "default-src 'none'; frame-ancestors 'none'"


def _made(campaign: str | None, month: str | None) -> Rendered:
    return embeds.rendered(bar(campaign, Month.parse(month) if month else None))


METERS = Fresh(_made)


def _asked(request: HttpRequest) -> Rendered:
    """The bar that was asked for. Raises UnknownCampaign, or ValueError for a malformed month."""
    month = request.GET.get("month")
    if month is not None:
        Month.parse(month)
    return METERS.get(request.GET.get("campaign"), month)


def _open(response: HttpResponse) -> HttpResponse:
    """Let any site read it, and whoever keeps it ask each time whether it is still true: a 304 costs next to nothing.

    The second that a bar may be behind the ledger is spent here already: see `selectors.bar.Fresh`.
    """
    response["Access-Control-Allow-Origin"] = "*"
    response["Cache-Control"] = "public, no-cache"
    return response


def _served(request: HttpRequest, shape: Shape, content_type: str) -> HttpResponse:
    """The bar; 304 where the reader has it already."""
    asked = request.META.get("HTTP_IF_NONE_MATCH", "")
    known = shape.etag in asked or asked.strip() == "*"  # RFC 9110, 13.1.2: any that there is
    response = HttpResponseNotModified() if known else HttpResponse(shape.body, content_type=content_type)
    response["ETag"] = shape.etag
    return _open(response)


@csrf_exempt  # only read: whatever else is asked is told so, with no page about forms
@require_safe
def meter_json(request: HttpRequest) -> HttpResponse:
    """`meter.json`: 200, or 304 while nothing has changed; 404 for an unknown campaign, 400 for a malformed month."""
    try:
        shown = _asked(request)
    except UnknownCampaign:
        return _open(JsonResponse({"error": "There is no such campaign."}, status=404))
    except ValueError:
        return _open(JsonResponse({"error": "Write the month like 2024-11."}, status=400))
    response = _served(request, shown.json, "application/json")
    response["Content-Security-Policy"] = NOTHING_TO_RUN
    return response


@csrf_exempt
@require_safe
@xframe_options_exempt
@csp_replace({"frame-ancestors": ["*"]})
def meter(request: HttpRequest) -> HttpResponse:
    """The bar as a page for an iframe on any site."""
    try:
        shown = _asked(request)
    except UnknownCampaign:
        return render(request, "404.html", status=404)
    except ValueError:
        return HttpResponse("Write the month like 2024-11.\n", status=400, content_type="text/plain")
    return _served(request, shown.page, "text/html; charset=utf-8")


@csrf_exempt
@require_safe
def meter_svg(request: HttpRequest) -> HttpResponse:
    """The bar as a picture."""
    try:
        shown = _asked(request)
    except UnknownCampaign:
        return _open(HttpResponse("There is no such campaign.\n", status=404, content_type="text/plain"))
    except ValueError:
        return _open(HttpResponse("Write the month like 2024-11.\n", status=400, content_type="text/plain"))
    return _served(request, shown.svg, "image/svg+xml")


@require_safe
def snippets(request: HttpRequest) -> HttpResponse:
    """The snippets to copy: of the campaign and the month that were asked for, as the bar above them."""
    try:
        shown = _asked(request)
    except (UnknownCampaign, ValueError):
        return render(request, "404.html", status=404)
    kept = {name: request.GET[name] for name in ("campaign", "month") if name in request.GET}
    return render(
        request,
        "donations/snippets.html",
        {"bar": shown.context, "frame": embeds.frame(kept), "link": embeds.link(shown.context)},
    )
