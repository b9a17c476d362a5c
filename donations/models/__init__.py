"""Tables and constraints. Each model's docstring names the one module that writes it."""

from donations.models.campaigns import Campaign, CampaignMonth, Tier
from donations.models.exports import ExportRecord
from donations.models.gifts import Gift, GiftState, RefundRequest
from donations.models.health import Alert, CheckResult
from donations.models.inbox import InboxEvent
from donations.models.ledger import LedgerEntry
from donations.models.outbox import OutboxMessage
from donations.models.people import Donor, Follower
from donations.models.totals import DailyRollup, MonthTotal

__all__ = [
    "Alert",
    "Campaign",
    "CampaignMonth",
    "CheckResult",
    "DailyRollup",
    "Donor",
    "ExportRecord",
    "Follower",
    "Gift",
    "GiftState",
    "InboxEvent",
    "LedgerEntry",
    "MonthTotal",
    "OutboxMessage",
    "RefundRequest",
    "Tier",
]
