"""The readers' pages: give, follow, thank you."""

from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.http import require_http_methods, require_safe

from donations import embeds, giving, money
from donations.forms import CUSTOM, GiveForm
from donations.models import Campaign, Gift
from donations.processors.base import ProcessorRefused, ProcessorUnavailable
from donations.selectors import bar as bars
from donations.views.public import SeeOther, from_our_own_pages

BACK = "back"  # the button that leads from the page of trouble to the filled-in form
USED_UP = "This page has led to many payments already. Nothing is lost: press the button once more to start afresh."


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """`/` and `/give/`: on to the default campaign, with whatever the address asked for: a tier, a source."""
    campaign = Campaign.objects.filter(is_default=True).first()
    if campaign is None:
        raise Http404("No campaign is the default one yet: staff choose it in the admin, under Campaigns.")
    asked = request.META.get("QUERY_STRING", "")
    return redirect(reverse("give", args=[campaign.pk]) + (f"?{asked}" if asked else ""))


@require_http_methods(["GET", "HEAD", "POST"])
@cache_control(private=True, max_age=0)
@from_our_own_pages
def give(request: HttpRequest, campaign: str) -> HttpResponse:
    """The donation page: shows the form, and takes it.

    A browser may keep it, so that going back shows the same form with the same token: the same attempt.
    """
    fund = Campaign.objects.filter(pk=campaign).first()
    if fund is None:
        raise Http404("There is no such campaign.")
    if request.method != "POST":
        return _page(request, fund, GiveForm(fund, initial=_asked_for(request, fund)))
    if BACK in request.POST:
        return _page(request, fund, GiveForm(fund, initial=request.POST.dict()))
    form = GiveForm(fund, request.POST)
    if not fund.is_open:
        form.add_error(None, "This campaign takes no gifts at the moment. Thank you for wanting to give.")
    if not form.is_valid():
        return _page(request, fund, form, status=422)
    if form.amount_minor == 0:
        return _follow(request, fund, form)
    return _hand_off(request, fund, form)


def _asked_for(request: HttpRequest, campaign: Campaign) -> dict[str, str]:
    """What an address may fill in.

    That is `?tier=500.00`, or `?tier=custom&amount=25`; where the reader comes from; and the form they come back to.
    """
    initial = {"source": request.GET.get("source", "")[:60], "amount": request.GET.get("amount", "")[:20]}
    tier = request.GET.get("tier", "")
    for preset in campaign.tiers.all():
        if tier and tier == money.decimal_text(preset.amount_minor, campaign.currency):
            tier = str(preset.amount_minor)
    initial["page"] = request.GET.get("page", "")[:200]
    # Ticked for those alone who come back to a form in which they had ticked it.
    if giving.page_id_of(initial["page"]):
        initial["cover"] = request.GET.get("cover", "")[:2]
    return initial | ({"tier": tier[:20]} if tier else {})


def _hand_off(request: HttpRequest, campaign: Campaign, form: GiveForm) -> HttpResponse:
    fields = form.cleaned_data
    intent = giving.Intent(
        campaign=campaign,
        amount=form.amount_minor,
        tier=form.tier_text,
        email=fields["email"].lower(),
        name=fields["name"],
        message=fields["message"],
        anonymous=fields["anonymous"],
        source=fields["source"],
        page=form.page_id,
        fee_cover=form.fee_cover,
    )
    try:
        return SeeOther(giving.start_gift(intent))
    except ProcessorRefused as refusal:
        form.add_error(_refused_field(refusal, fields["tier"]), refusal.reader_text)
        return _page(request, campaign, form, status=422)
    except ProcessorUnavailable:
        return _trouble(request, campaign, form)
    except giving.PageUsedUp:
        form.add_error(None, USED_UP)
        form.page_id = ""  # the form comes back with a page token of its own
        return _page(request, campaign, form, status=422)


def _refused_field(refusal: ProcessorRefused, tier: str) -> str:
    if refusal.code == "email_invalid":
        return "email"
    return "amount" if tier == CUSTOM else "tier"


def _trouble(request: HttpRequest, campaign: Campaign, form: GiveForm) -> HttpResponse:
    """The payment service is away: everything typed is kept in the page, and the same button tries again."""
    values = [(name, form.data.get(name, "")) for name in form.fields if form.data.get(name)]
    context = {
        "campaign": campaign,
        "form": form,
        "fields": values,
        "retry_url": f"{request.path}?sent",
        "sentence": "The payment service does not answer just now. Nothing was charged, and nothing you typed is lost.",
    }
    return render(request, "donations/trouble.html", context, status=503)


def _follow(request: HttpRequest, campaign: Campaign, form: GiveForm) -> HttpResponse:
    fields = form.cleaned_data
    giving.follow(campaign=campaign, email=fields["email"], name=fields["name"], source=fields["source"])
    return render(request, "donations/followed.html", {"campaign": campaign, "state": "sent"})


def _page(request: HttpRequest, campaign: Campaign, form: GiveForm, status: int = 200) -> HttpResponse:
    if form.is_bound and not form.page_id:
        form.data = {**form.data.dict(), "page": giving.new_page()}  # type: ignore[attr-defined]  # it is the request's QueryDict
    elif not form.is_bound and not giving.is_open_page(str(form.initial.get("page", ""))):
        form.initial["page"] = giving.new_page()
    context = {
        "campaign": campaign,
        "form": form,
        "bar": embeds.context(bars.bar(campaign.pk, None)),
        "tiers": _tiers(form),
        "cover": _cover(form),
        "currency": campaign.currency,
        "symbol": money.SYMBOLS.get(campaign.currency, campaign.currency),
        "minimum_label": money.format_minor(money.minimum(campaign.currency), campaign.currency),
        "maximum_label": money.format_minor(money.MAXIMUM_MINOR, campaign.currency),
        "notice": "" if campaign.is_open else "This campaign takes no gifts at the moment.",
    }
    return render(request, "donations/give.html", context, status=status)


def _cover(form: GiveForm) -> dict[str, Any]:
    """What the box for the processor's fee says, and what its script reckons with; empty where it is not offered."""
    currency = form.campaign.currency
    if form.formula is None:
        return {}
    return {
        "words": form.formula.words(currency),
        "per_million": str(form.formula.per_million),
        "fixed": str(form.formula.fixed),
        "step": str(money.STEPS.get(currency, 1)),
        "digits": str(money.exponent(currency)),
        "most": str(money.MAXIMUM_MINOR),
        "written": settings.AMOUNT_STYLE,
    }


def _tiers(form: GiveForm) -> list[dict[str, Any]]:
    """The choices in the page's order: amounts first, $0 last; the one that was chosen, or the first, is checked."""
    presets = sorted(form.tiers, key=lambda tier: (tier.amount_minor == 0, tier.position, tier.amount_minor))
    values = [str(tier.amount_minor) for tier in presets]
    chosen = form["tier"].value()
    if not form.is_bound and chosen not in {*values, CUSTOM}:
        chosen = values[0] if values and values[0] != "0" else CUSTOM
        form.initial["tier"] = chosen
    return [
        {
            "value": value,
            "label": money.format_minor(tier.amount_minor, form.campaign.currency),
            "text": tier.label,
            "checked": value == chosen,
        }
        for tier, value in zip(presets, values, strict=True)
    ]


@never_cache
@require_safe
def thanks(request: HttpRequest, token: str) -> HttpResponse:
    """Says "confirming" until the processor's word has come, and then thanks. It reads the database alone."""
    gift = giving.gift_of_thanks(token)
    if gift is None:
        raise Http404("This address is not complete.")
    context = {
        "gift": gift,
        "campaign": gift.campaign,
        "state": _shown_state(gift),
        "amount_label": money.format_minor(gift.amount, gift.currency),
        "cover_label": money.format_minor(gift.fee_cover, gift.currency) if gift.fee_cover else "",
        "total_label": money.format_minor(gift.total, gift.currency),
        "bar": embeds.context(bars.bar(gift.campaign_id, None)),
        "give_url": f"/give/{gift.campaign_id}/",
    }
    return render(request, "donations/thanks.html", context)


def _shown_state(gift: Gift) -> str:
    state = getattr(gift, "state", None)
    status = state.status if state else "pending"
    if status == "pending":
        over = gift.checkout_expires_at is not None and gift.checkout_expires_at < timezone.now()
        return "expired" if over else "confirming"
    return str(status)


@never_cache
@from_our_own_pages
def follow(request: HttpRequest, token: str) -> HttpResponse:
    """The mailed link. It asks for one press of a button, since mail programs open links by themselves."""
    follower = giving.follower_of(token)
    if follower is None:
        return render(request, "donations/followed.html", {"state": "invalid"}, status=404)
    context = {"campaign": follower.campaign, "state": "confirmed"}
    if request.method != "POST":
        template = "donations/follow.html" if follower.confirmed_at is None else "donations/followed.html"
        return render(request, template, context)
    giving.confirm_follower(follower)
    return render(request, "donations/followed.html", context)
