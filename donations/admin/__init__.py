"""Staff's rooms: what is raised for is edited here; money and what was told of it is looked at, and decided about."""

from django.contrib import admin

from donations.admin import (
    campaigns,
    gifts,
    inbox,
    ledger,
    monthly,
    months,
    offline,
    payouts,
    people,
    records,
    statements,
    users,
)

__all__ = [
    "campaigns",
    "gifts",
    "inbox",
    "ledger",
    "monthly",
    "months",
    "offline",
    "payouts",
    "people",
    "records",
    "statements",
    "users",
]

admin.site.site_header = admin.site.site_title = "Reader support"
admin.site.index_title = "Staff’s rooms"
