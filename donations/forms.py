"""What a reader may fill in, and what is wrong with it in words."""

import re
from typing import Any

from django import forms

from donations import fees, giving, letters, money
from donations.models import Campaign, Tier
from donations.models.campaigns import CUSTOM
from donations.models.people import LONGEST_EMAIL

ONCE, MONTHLY = Tier.Frequency.ONCE, Tier.Frequency.MONTHLY
NOTHING = re.compile(r"0+(\.0*)?", re.ASCII)
TOO_LONG = {"max_length": "This is too long for an amount. Type it in digits."}
SOURCE = re.compile(r"[A-Za-z0-9_-]{1,60}", re.ASCII)


class LinesField(forms.CharField):
    """A text of several lines. A browser counts each break as one character, and sends it as two: here it is one."""

    def to_python(self, value: Any) -> str:
        return str(super().to_python(value)).replace("\r\n", "\n").replace("\r", "\n")


class DayField(forms.DateField):
    """A day as a page's calendar sends it, and as it is typed where there is none: 2024-11-18, in no other order."""

    def __init__(self, attributes: dict[str, str] | None = None, **options: Any) -> None:
        super().__init__(
            input_formats=["%Y-%m-%d"],
            widget=forms.DateInput({"type": "date"} | (attributes or {}), "%Y-%m-%d"),
            error_messages={"invalid": "This is no valid date. Type year, month and day, like this: 2024-11-18."},
            **options,
        )


class GiveForm(forms.Form):
    """The donation form of one campaign. After validation, `amount_minor` is what is given; 0 is to follow.

    One-time and monthly gifts each have a choice of their own, so that the page is whole without a script: `frequency`
    says which of the two counts, and what stands in the other is passed over. `fee_cover` is what is added to the gift
    for the processor's fee, minor units.

    An amount that was typed beside a tier that is chosen stands `aside`, which names both: the page's script sends it
    there alone, so that it is kept. Without the script it is asked about once, and the form that is shown again has it.
    """

    frequency = forms.CharField(required=False)
    tier = forms.CharField(required=False, max_length=20)
    amount = forms.CharField(required=False, max_length=money.LONGEST_TYPED, error_messages=TOO_LONG)
    monthly_tier = forms.CharField(required=False, max_length=20)
    monthly_amount = forms.CharField(required=False, max_length=money.LONGEST_TYPED, error_messages=TOO_LONG)
    aside = forms.CharField(required=False)
    monthly_aside = forms.CharField(required=False)
    name = forms.CharField(
        required=False, max_length=100, error_messages={"max_length": "A name can have 100 characters at most."}
    )
    email = forms.EmailField(
        required=False,
        max_length=LONGEST_EMAIL,
        error_messages={"invalid": "This is not an email address. It looks like name@example.org."},
    )
    message = LinesField(
        required=False, max_length=500, error_messages={"max_length": "A message can have 500 characters at most."}
    )
    cover = forms.BooleanField(required=False)
    anonymous = forms.BooleanField(required=False)
    source = forms.CharField(required=False)
    page = forms.CharField(required=False, max_length=200)

    def __init__(self, campaign: Campaign, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.campaign = campaign
        tiers = list(campaign.tiers.all())
        # Following costs nothing, and so is not done each month.
        self.tiers = {
            ONCE: [tier for tier in tiers if tier.frequency == ONCE],
            MONTHLY: [tier for tier in tiers if tier.frequency == MONTHLY and tier.amount_minor],
        }
        self.formula = giving.fee_formula(campaign)
        self.amount_minor = self.fee_cover = 0
        self.page_id = self.asked_about = ""

    def clean(self) -> dict[str, Any]:
        """Work out the amount and the attempt; every refusal is a sentence beside its field."""
        cleaned = super().clean() or {}
        if self.is_monthly and not self.takes_monthly:
            self.add_error(None, "This campaign takes no monthly gifts at the moment. You can give once, below.")
        else:
            self._clean_choice(cleaned)
        if not self.errors and self.amount_minor and cleaned.get("cover"):
            self._clean_cover()
        if not self.errors and self.amount_minor == 0 and not cleaned.get("email"):
            self.add_error("email", "To follow us we need your email: we send a link to confirm it.")
        self.page_id = giving.page_id_of(cleaned.get("page", ""))
        if not self.page_id:
            self.add_error(None, "This page was open for a long time. Nothing is lost: press the button once more.")
        return cleaned

    def clean_email(self) -> str:
        """In small letters, as it is kept; some letters are longer when they are small."""
        email = str(self.cleaned_data["email"]).lower()
        if len(email) > LONGEST_EMAIL:
            raise forms.ValidationError("This email address is too long.")
        return email

    def clean_name(self) -> str:
        """As staff can read it in a list; a name of which nothing can be seen is none."""
        return letters.shown_name(str(self.cleaned_data["name"]))

    def clean_source(self) -> str:
        """Where the reader came from; anything odd is no reason to stop them."""
        source = str(self.cleaned_data["source"])
        return source if SOURCE.fullmatch(source) else ""

    @property
    def takes_monthly(self) -> bool:
        """Whether the campaign offers monthly gifts."""
        return bool(self.tiers[MONTHLY])

    @property
    def is_monthly(self) -> bool:
        """Whether a monthly gift is asked for; whatever else is said of the frequency, money is asked for once."""
        return bool(self["frequency"].value() == MONTHLY)

    @property
    def choice(self) -> tuple[str, str]:
        """The names of the fields that count: of the tier, and of the amount typed beside it."""
        return ("monthly_tier", "monthly_amount") if self.is_monthly else ("tier", "amount")

    def _clean_choice(self, cleaned: dict[str, Any]) -> None:
        for other in {"tier", "amount", "monthly_tier", "monthly_amount"}.difference(self.choice):
            self.errors.pop(other, None)
        tier_field, _ = self.choice
        tier = cleaned.get(tier_field, "")
        presets = {str(preset.amount_minor): preset.amount_minor for preset in self.offered}
        if tier in presets:
            self.amount_minor = presets[tier]
            self._clean_what_is_typed_beside(tier)
        elif tier == CUSTOM:
            self._clean_own_amount(cleaned)
        elif tier_field not in self.errors:
            gone = "This amount is not offered any more. Choose one of these, or type another amount."
            self.add_error(tier_field, gone if tier else "Choose an amount.")

    def _clean_own_amount(self, cleaned: dict[str, Any]) -> None:
        _, amount_field = self.choice
        if amount_field in self.errors:
            return
        typed = (cleaned.get(amount_field) or "").strip()
        try:
            self.amount_minor = money.parse_amount(typed, self.campaign.currency)
        except money.AmountError as error:
            self.add_error(amount_field, f"{error} {self._way_to_follow(typed)}".strip())

    def _clean_what_is_typed_beside(self, tier: str) -> None:
        """An old browser shows the tiers and the field at once: which of the two is meant is asked, and only once."""
        _, amount_field = self.choice
        self.errors.pop(amount_field, None)
        typed = str(self[amount_field].value() or "").strip()
        aside = f"{tier} {typed}"
        if not typed or self._is_same(typed) or aside == self[self.aside_field].value():
            return
        self.asked_about = aside
        chosen = money.format_minor(self.amount_minor, self.campaign.currency)
        give = f"give {chosen}{' each month' if self.is_monthly else ''}" if self.amount_minor else "pay nothing"
        another = f"{typed} as another amount" if len(typed) <= money.LONGEST_TYPED else "another amount"
        self.add_error(
            amount_field,
            f"You chose {chosen}, and typed {another}. Press the button again to {give}, or choose “Other amount”.",
        )

    @property
    def aside_field(self) -> str:
        """The name of the field in which an amount beside the chosen tier stands aside."""
        return "monthly_aside" if self.is_monthly else "aside"

    @property
    def offered(self) -> list[Tier]:
        """The tiers of the frequency that is chosen."""
        return self.tiers[MONTHLY if self.is_monthly else ONCE]

    def _clean_cover(self) -> None:
        """What is added is reckoned here alone: the page shows it, and sends no amount."""
        currency = self.campaign.currency
        if self.formula is None:
            self.add_error(None, "We no longer ask you to add the fee. If that is right, press the button once more.")
            return
        self.fee_cover = fees.cover(self.amount_minor, currency, self.formula)
        if self.amount_minor + self.fee_cover > money.maximum(currency):
            total = money.format_minor(self.amount_minor + self.fee_cover, currency)
            most = money.format_minor(money.maximum(currency), currency)
            self.add_error(
                "cover",
                f"With the fee you would pay {total}, and {most} is the most that can be paid at once. "
                "Choose a smaller amount, or leave the fee out.",
            )

    def _way_to_follow(self, typed: str) -> str:
        """Who types 0 means the choice that asks for no money, where there is one."""
        if not NOTHING.fullmatch(typed) or all(preset.amount_minor for preset in self.offered):
            return ""
        return f"To support us without paying, choose {money.format_minor(0, self.campaign.currency)} below."

    def _is_same(self, typed: str) -> bool:
        if self.amount_minor == 0:
            return bool(NOTHING.fullmatch(typed))
        try:
            return money.parse_amount(typed, self.campaign.currency) == self.amount_minor
        except money.AmountError:
            return False

    @property
    def tier_text(self) -> str:
        """What the gift remembers of the choice: the tier's amount as text, or "custom"."""
        chosen = self.cleaned_data[self.choice[0]]
        return CUSTOM if chosen == CUSTOM else money.decimal_text(self.amount_minor, self.campaign.currency)


class ExportForm(forms.Form):
    """What of the books finance wants: a campaign, or all, and a period by the days of the movements."""

    campaign: "forms.ModelChoiceField[Campaign]" = forms.ModelChoiceField(
        Campaign.objects.order_by("slug"), required=False, empty_label="All campaigns"
    )
    start = DayField(required=False, label="From")
    end = DayField(
        required=False,
        label="Up to, not including",
        help_text="The first day after the period: for November, 1 December.",
    )

    def clean(self) -> dict[str, Any]:
        """Refuse a period that ends before it begins."""
        cleaned = super().clean() or {}
        start, end = cleaned.get("start"), cleaned.get("end")
        if start and end and start >= end:
            self.add_error("end", "This period is empty. The end is the first day after it: for November, 1 December.")
        return cleaned
