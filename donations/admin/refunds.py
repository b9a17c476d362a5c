"""The page on which staff ask for a refund of a gift."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.signing import BadSignature, Signer
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.views.decorators.http import require_http_methods

from donations import processors, refunding
from donations.admin.amounts import AmountField, read_amount, typed_text
from donations.admin.reading import ReadOnlyAdmin, page_of
from donations.charts import amount_text
from donations.models import Gift, GiftState, RefundRequest
from donations.models.gifts import new_refund_key
from donations.selectors import refunds


def state_of(gift: Gift) -> GiftState:
    """What became of a gift; of one that nothing is known of, that it is pending."""
    state: GiftState | None = getattr(gift, "state", None)
    return state or GiftState(gift=gift, currency=gift.currency, tier=gift.tier)


def left_to_refund(gift: Gift) -> int:
    """Minor units that can still be given back by the processor, and are of the key's own mode."""
    by_processor = gift.processor in processors.PROCESSORS and gift.processor != processors.OFFLINE
    ours = gift.livemode == settings.LIVEMODE and by_processor
    return refunds.left_of(gift.pk) if ours else 0


class RefundForm(forms.Form):
    """A refund of one gift. After validation, `minor` is its amount in minor units.

    `left` is what was left when the page was shown: a colleague's refund is noticed by it. `key` is the page's own, and
    used once: a second press of its button finds the refund of the first.
    """

    amount = AmountField(label="Amount")
    reason = forms.CharField(
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text="For your colleagues. The donor does not see it.",
    )
    left = forms.CharField(required=False, widget=forms.HiddenInput, max_length=30)
    key = forms.CharField(required=False, widget=forms.HiddenInput, max_length=200)

    def __init__(self, gift: Gift, left: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gift, self.left_now, self.left_text, self.minor = gift, left, str(left), 0
        self.fresh_key = _signer(gift).sign(new_refund_key())
        self.initial = {"amount": typed_text(left, gift.currency), "left": self.left_text}
        self.fields["amount"].label = f"Amount ({gift.currency})"
        self.fields["amount"].help_text = f"{amount_text(left, gift.currency)} can be given back."

    def clean_amount(self) -> str:
        typed = str(self.cleaned_data["amount"])
        self.minor = read_amount(typed, self.gift.currency)
        if not 0 < self.minor <= self.left_now:
            most = amount_text(self.left_now, self.gift.currency)
            raise ValidationError(f"Give an amount above zero, and {most} at most: no more is left of this gift.")
        if odd := refunding.odd_words(self.minor, self.gift.currency, left=self.left_now):
            raise ValidationError(odd)
        return typed

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not key_of_page(self.gift, cleaned.get("key", "")):
            raise ValidationError("This page is not whole any more. Nothing was asked for. Press the button again.")
        if cleaned.get("left") != self.left_text:
            raise ValidationError(
                "Since this page was opened, a refund of this gift was asked for or arrived. "
                "Nothing was asked for now. Look at the amount, and press the button again if you still mean it."
            )
        return cleaned


def _signer(gift: Gift) -> Signer:
    return Signer(salt=f"donations.refund.{gift.pk}")


def key_of_page(gift: Gift, signed: str) -> str:
    """The one-time key of a refund page of this gift; empty for what we did not sign."""
    try:
        return _signer(gift).unsign(signed)
    except BadSignature:
        return ""


@require_http_methods(["GET", "HEAD", "POST"])
def refund_page(request: HttpRequest, room: ReadOnlyAdmin, reference: str) -> HttpResponse:
    user = request.user
    if not (user.has_perm("donations.view_gift") and user.has_perm("donations.add_refundrequest")):
        raise PermissionDenied
    gift = get_object_or_404(Gift.objects.select_related("campaign", "state"), pk=reference)
    left = left_to_refund(gift)
    if request.method != "POST":
        if left == 0:
            messages.warning(request, "Nothing of this gift can be given back: look at its figures and its refunds.")
            return HttpResponseRedirect(page_of(gift))
        return _refund_form_page(room, request, gift, RefundForm(gift, left))
    key = key_of_page(gift, request.POST.get("key", ""))
    if first := refunding.asked_already(key) if key else None:
        return _second_press(request, gift, first)
    form = RefundForm(gift, left, request.POST)
    if form.is_valid():
        try:
            asked = refunding.request_refund(
                gift=gift,
                amount=form.minor,
                reason=form.cleaned_data["reason"],
                user=user,  # type: ignore[arg-type]  # the admin lets nobody in who is not a User
                key=key,
            )
        except refunding.AskedAlready as again:
            return _second_press(request, gift, again.first)
        except refunding.RefundRefused as refusal:
            form.add_error(None, str(refusal))
        else:
            _tell_of_refund(room, request, gift, asked)
            return HttpResponseRedirect(page_of(gift))
    return _refund_form_page(room, request, gift, form, status=422)


def _second_press(request: HttpRequest, gift: Gift, first: RefundRequest) -> HttpResponse:
    amount = amount_text(first.amount, gift.currency)
    messages.info(
        request,
        f"This page has asked for a refund of {amount} before, which is {first.get_status_display()}. "
        "Nothing was asked for a second time. For another refund, open the page anew.",
    )
    return HttpResponseRedirect(page_of(gift))


def _refund_form_page(
    room: ReadOnlyAdmin, request: HttpRequest, gift: Gift, form: RefundForm, status: int = 200
) -> HttpResponse:
    state = state_of(gift)
    on_their_way = sum(refund.amount for refund in refunds.on_their_way(gift.pk) if not refund.is_ours)
    context = {
        **room.admin_site.each_context(request),
        "opts": room.opts,
        "title": "Refund a gift",
        "gift": gift,
        "subject": gift.pk,
        "back": page_of(gift),
        "form": form,
        "facts": [
            ("Gift", gift.pk),
            ("Campaign", gift.campaign),
            ("Charged", amount_text(state.charged, gift.currency)),
            ("Refunded", amount_text(state.refunded, gift.currency)),
            ("Refunds asked for here", amount_text(state.refund_requested, gift.currency)),
            ("Other refunds on their way", amount_text(on_their_way, gift.currency)),
        ],
    }
    return TemplateResponse(request, "admin/donations/gift/refund.html", context, status=status)


def _tell_of_refund(room: ReadOnlyAdmin, request: HttpRequest, gift: Gift, asked: RefundRequest) -> None:
    amount = amount_text(asked.amount, gift.currency)
    room.log_change(request, gift, f"Asked for a refund of {amount}.")
    asked.refresh_from_db()
    if asked.status == RefundRequest.Status.SENDING:
        messages.warning(
            request,
            f"The refund of {amount} is noted, but the payment service did not answer. It is sent again by itself: "
            "do not ask for it a second time. The ledger and the bar change when the processor’s event comes.",
        )
    else:
        messages.success(
            request,
            f"The payment service took the refund of {amount}. "
            "The ledger and the bar change when the processor’s event comes.",
        )


@require_http_methods(["GET", "HEAD", "POST"])
def give_up_refund(request: HttpRequest, room: ReadOnlyAdmin, reference: str, asked: int) -> HttpResponse:
    """Give up a refund of this gift that staff did not find at the processor, and go back to the gift.

    Who had to sign in on the way comes by GET, and finds the button there once more.
    """
    if not (request.user.has_perm("donations.view_gift") and request.user.has_perm("donations.add_refundrequest")):
        raise PermissionDenied
    refund = get_object_or_404(RefundRequest.objects.select_related("gift"), pk=asked, gift=reference)
    if request.method != "POST":
        return HttpResponseRedirect(page_of(refund.gift))
    gift, amount = refund.gift, amount_text(refund.amount, refund.gift.currency)
    try:
        refunding.give_up_refund(refund)
    except refunding.RefundRefused as refusal:
        messages.warning(request, str(refusal))
    else:
        room.log_change(request, gift, f"Gave up a refund of {amount}.")
        messages.success(request, f"The refund of {amount} is given up. It can be asked for anew.")
    return HttpResponseRedirect(page_of(gift))
