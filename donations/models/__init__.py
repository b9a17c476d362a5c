"""Tables and constraints. Each model's docstring names the one module that writes it."""

from donations.models.campaigns import Campaign, CampaignMonth, Tier
from donations.models.exports import ExportRecord
from donations.models.gifts import Gift, GiftState, RefundRequest
from donations.models.inbox import InboxEvent
from donations.models.ledger import LedgerEntry
from donations.models.offline import OfflineRequest
from donations.models.outbox import OutboxMessage
from donations.models.people import Donor, Follower
from donations.models.recurring import RecurringGift
from donations.models.settlements import BalanceTransaction, Lookup, Payout
from donations.models.statements import MonthStatement
from donations.models.totals import DailyRollup, MonthTotal

__all__ = [
    "BalanceTransaction",
    "Campaign",
    "CampaignMonth",
    "DailyRollup",
    "Donor",
    "ExportRecord",
    "Follower",
    "Gift",
    "GiftState",
    "InboxEvent",
    "LedgerEntry",
    "Lookup",
    "MonthStatement",
    "MonthTotal",
    "OfflineRequest",
    "OutboxMessage",
    "Payout",
    "RecurringGift",
    "RefundRequest",
    "Tier",
]
