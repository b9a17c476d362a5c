"""The readers' pages: give, follow, thank you."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.http import require_http_methods, require_safe

from donations import embeds, giving, money
from donations.forms import MONTHLY, ONCE, GiveForm
from donations.models import Campaign, Gift, RecurringGift, Tier
from donations.models.campaigns import CUSTOM
from donations.processors.base import ProcessorRefused, ProcessorUnavailable
from donations.selectors import bar as bars
from donations.selectors import gifts
from donations.selectors.gifts import Received
from donations.views.public import SeeOther, from_our_own_pages

TOLD_WITHIN = timedelta(hours=1)  # since a gift was begun: news of its payment that are later are late
EAGER_FOR, PATIENT_FOR = timedelta(minutes=10), timedelta(days=1)
EAGER, PATIENT = 3, 30  # seconds after which a page that waits for news looks again, at first and later
SETTLES_WITHIN = timedelta(minutes=2)  # a first payment that is not told of by then is on its way by a slow method
BACK = "back"  # the button that leads from the page of trouble to the filled-in form
USED_UP = "This page has led to many payments already. Nothing is lost: press the button once more to start afresh."


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """`/` and `/give/`: on to the default campaign, with whatever the address asked for: a tier, a source."""
    campaign = Campaign.objects.filter(is_default=True).first()
    if campaign is None:
        words = "There is no campaign to give to yet. Staff make the first one in the admin, under Campaigns."
        return render(request, "404.html", {"words": words}, status=404)
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
    if not fund.is_open:
        return _closed(request, fund)
    if request.method != "POST":
        return _page(request, fund, GiveForm(fund, initial=_asked_for(request, fund)))
    if BACK in request.POST:
        return _page(request, fund, GiveForm(fund, initial=request.POST.dict()))
    form = GiveForm(fund, request.POST)
    if not form.is_valid():
        return _page(request, fund, form, status=422)
    if form.amount_minor == 0:
        return _follow(request, fund, form)
    return _hand_off(request, fund, form)


def _closed(request: HttpRequest, campaign: Campaign) -> HttpResponse:
    """The bar and a sentence: a form could only fail."""
    context = {"campaign": campaign, "bar": embeds.context(bars.bar(campaign.pk, None)), "closed": True}
    return render(request, "donations/give.html", context, status=422 if request.method == "POST" else 200)


def _asked_for(request: HttpRequest, campaign: Campaign) -> dict[str, str]:
    """What an address may fill in.

    That is `?tier=500.00`, or `?tier=custom&amount=25`, each with `&frequency=monthly` for a monthly gift; where the
    reader comes from; and the form they come back to.
    """
    frequency = MONTHLY if request.GET.get("frequency") == MONTHLY else ONCE
    prefix = "monthly_" if frequency == MONTHLY else ""
    tier = request.GET.get("tier", "")
    for preset in campaign.tiers.filter(frequency=frequency):
        if tier and tier == money.decimal_text(preset.amount_minor, campaign.currency):
            tier = str(preset.amount_minor)
    initial = {"source": request.GET.get("source", "")[:60], f"{prefix}amount": request.GET.get("amount", "")[:20]}
    initial |= {"page": request.GET.get("page", "")[:200], "frequency": str(frequency)}
    # Ticked for those alone who come back to a form in which they had ticked it.
    if giving.page_id_of(initial["page"]):
        initial["cover"] = request.GET.get("cover", "")[:2]
    return initial | ({f"{prefix}tier": tier[:20]} if tier else {})


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
        monthly=form.is_monthly,
        fee_cover=form.fee_cover,
    )
    try:
        return SeeOther(giving.start_gift(intent))
    except ProcessorRefused as refusal:
        form.add_error(_refused_field(refusal, form), refusal.reader_text)
        return _page(request, campaign, form, status=422)
    except ProcessorUnavailable:
        return _trouble(request, campaign, form)
    except giving.PageUsedUp:
        form.add_error(None, USED_UP)
        form.page_id = ""  # the form comes back with a page token of its own
        return _page(request, campaign, form, status=422)


def _refused_field(refusal: ProcessorRefused, form: GiveForm) -> str:
    if refusal.code == "email_invalid":
        return "email"
    tier, amount = form.choice
    return amount if form.cleaned_data[tier] == CUSTOM else tier


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
    giving.follow(
        campaign=campaign, email=fields["email"], name=fields["name"], source=fields["source"], page=form.page_id
    )
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
        "choices": _choices(form),
        "cover": _cover(form),
        "currency": campaign.currency,
        "symbol": money.SYMBOLS.get(campaign.currency, campaign.currency),
        "minimum_label": money.format_minor(money.minimum(campaign.currency), campaign.currency),
        "maximum_label": money.format_minor(money.maximum(campaign.currency), campaign.currency),
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
        "step": str(money.step(currency)),
        "digits": str(money.exponent(currency)),
        "most": str(money.maximum(currency)),
        "written": settings.AMOUNT_STYLE,
    }


def _choices(form: GiveForm) -> list[dict[str, Any]]:
    """What there is to choose from: once, and each month where the campaign offers it."""
    once = _choice(form, ONCE, "How much?")
    return [once, _choice(form, MONTHLY, "How much each month?")] if form.takes_monthly else [once]


def _choice(form: GiveForm, frequency: Tier.Frequency, legend: str) -> dict[str, Any]:
    """The amounts in the page's order: $0 last; the one that was chosen, or else the first, is checked."""
    prefix = "monthly_" if frequency == MONTHLY else ""
    tier, amount = form[f"{prefix}tier"], form[f"{prefix}amount"]
    presets = sorted(form.tiers[frequency], key=lambda each: (each.amount_minor == 0, each.position, each.amount_minor))
    values = [str(preset.amount_minor) for preset in presets]
    chosen = tier.value()
    if not form.is_bound and chosen not in {*values, CUSTOM}:
        chosen = values[0] if values and values[0] != "0" else CUSTOM
    tiers = [_tier(preset, form.campaign.currency) for preset in presets]
    aside = form[f"{prefix}aside"]
    asked_about = form.asked_about if form.aside_field == aside.name else ""
    _, _, typed_aside = str(aside.value() or "").partition(" ")
    return {
        "name": str(frequency),
        "legend": legend,
        "tier": tier,
        "amount": amount,
        "typed": typed_aside if amount.value() is None else amount.value(),
        "aside": aside.name,
        "set_aside": asked_about or aside.value() or "",
        "tiers": tiers,
        "chosen": chosen,
    }


def _tier(preset: Tier, currency: str) -> dict[str, str]:
    label = money.format_minor(preset.amount_minor, currency)
    return {"value": str(preset.amount_minor), "label": label, "text": preset.label}


@never_cache
@require_safe
def thanks(request: HttpRequest, token: str) -> HttpResponse:
    """Says "confirming" until the processor's word has come, and then what came of it. It reads the database alone."""
    asked = giving.asked_of_thanks(token)
    if asked is None:
        raise Http404("This address is not complete.")
    monthly = isinstance(asked, RecurringGift)
    received = gifts.first_received(asked.pk) if monthly else gifts.received(asked.pk)
    state = _booked(asked) if received else _not_booked(asked)
    context = {
        "monthly": monthly,
        "campaign": asked.campaign,
        "state": state,
        "reference": asked.pk,
        "bar": embeds.context(bars.bar(asked.campaign_id, None)),
        "give_url": f"/give/{asked.campaign_id}/{'?frequency=monthly' if monthly else ''}",
        "look_again_after": _look_again_after(asked) if state in {"confirming", "unheard"} else None,
        **(_received_labels(received) if received else _asked_labels(asked)),
    }
    return render(request, "donations/thanks.html", context)


def _look_again_after(asked: giving.Asked) -> int | None:
    """In how many seconds the page looks again; None for one that was left open for long."""
    age = _age(asked)
    return EAGER if age < EAGER_FOR else PATIENT if age < PATIENT_FOR else None


def _received_labels(received: Received) -> dict[str, str]:
    """What was paid, which staff may have accepted though it is not what was asked."""
    amount, cover = (received.given, received.cover) if received.is_in_parts else (received.paid, 0)
    return _labels(received.currency, amount, cover)


def _asked_labels(asked: giving.Asked) -> dict[str, str]:
    return _labels(asked.currency, asked.amount, asked.fee_cover)


def _labels(currency: str, amount: int, cover: int) -> dict[str, str]:
    return {
        "amount_label": money.format_minor(amount, currency),
        "cover_label": money.format_minor(cover, currency) if cover else "",
        "total_label": money.format_minor(amount + cover, currency),
    }


def _booked(asked: giving.Asked) -> str:
    """Of a monthly gift the first payment is what the page tells of, and what was told stands."""
    return "given_back" if isinstance(asked, Gift) and gifts.is_given_back(asked.pk) else "confirmed"


def _not_booked(asked: giving.Asked) -> str:
    """What is shown of a gift that is not in the books. That nothing was charged is the processor's to say alone."""
    if aside := gifts.set_aside(asked.pk):
        return aside
    return _monthly_state(asked) if isinstance(asked, RecurringGift) else _once_state(asked)


def _once_state(gift: Gift) -> str:
    state = getattr(gift, "state", None)
    if state and state.status != "pending" and not _says_nothing(state.status, gift):
        return str(state.status)
    return _unheard_of(gift)


def _says_nothing(status: str, asked: giving.Asked) -> bool:
    """Whether the end of one checkout leaves open what became of another, made after a failure that was kept."""
    return status == "expired" and asked.checkout_keys_spent > 0


def _unheard_of(asked: giving.Asked) -> str:
    """The checkout's own end says nothing: it may have been paid before, and the news be late."""
    return "confirming" if _age(asked) < TOLD_WITHIN else "unheard"


def _age(asked: giving.Asked) -> timedelta:
    return timezone.now() - asked.created_at


def _monthly_state(recurring: RecurringGift) -> str:
    """Of a monthly gift none of whose gifts is booked; once one is, it is thanked for whatever became of it since."""
    status = recurring.status
    if status in RecurringGift.TO_BEGIN or _says_nothing(status, recurring):
        return _unheard_of(recurring)
    if status == RecurringGift.Status.CANCELED:
        return "ended"  # it may have been paid before that
    if status in RecurringGift.OVER:
        return "expired"
    if status in RecurringGift.FAILING:
        return "failed"
    waits = recurring.heard_at is not None and timezone.now() - recurring.heard_at > SETTLES_WITHIN
    return "awaiting" if waits else "confirming"


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
