"""Goals: a month's own, and the default of those that have none. A month that has begun keeps its goal."""

from django.db import transaction
from django.utils import timezone
from djmoney.money import Money

from donations.models import Campaign, CampaignMonth
from donations.models.campaigns import LARGEST_GOAL
from donations.periods import Month


def change_default_goal(campaign: Campaign, goal: Money) -> None:
    """Change the goal of months to come. The months since the campaign opened get today's goal for good first.

    Raises ValueError for another currency than the campaign's.
    """
    if goal.currency.code != campaign.currency:
        raise ValueError(f"this campaign raises {campaign.currency}")
    with transaction.atomic():
        before = Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
        if before.default_goal != goal:
            _settle_begun_months(before)
            before.default_goal = goal
            before.save(update_fields=["default_goal", "default_goal_currency"])
    campaign.default_goal = goal


def _settle_begun_months(campaign: Campaign) -> None:
    month = Month.of(campaign.opened_at, campaign.time_zone)
    current = Month.of(timezone.now(), campaign.time_zone)
    rows = []
    while month <= current:
        rows.append(CampaignMonth(campaign=campaign, month=str(month), goal=campaign.default_goal_minor))
        month = month.next
    CampaignMonth.objects.bulk_create(rows, ignore_conflicts=True)


def set_month_goal(
    *, campaign: Campaign, month: Month, goal_minor: int, scale: list[int] | None = None
) -> CampaignMonth:
    """Give a month a goal of its own, minor units, and marks if they are given."""
    if not 0 <= goal_minor <= LARGEST_GOAL:
        raise ValueError("a goal is not negative, and not that large")
    defaults: dict[str, object] = {"goal": goal_minor}
    if scale is not None:
        defaults["scale"] = sorted(scale)
    return CampaignMonth.objects.update_or_create(campaign=campaign, month=str(month), defaults=defaults)[0]
