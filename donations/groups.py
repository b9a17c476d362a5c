"""The two groups of staff that every site begins with, each with the least that its work needs.

`Campaign managers` set up what is raised for and watch the month. They see gifts as the dashboard shows them, and
nobody's address. They decide nothing about money.

`Finance` answers for the books: the ledger, the quarantine, refunds and files. It sees donors, since a refund or a
disputed payment begins with a donor's letter. It changes no campaign.

A group is given its rights when it is made. What an operator adds or takes away afterwards stays. Of the
rights that a later version brought, those to offline gifts and to payouts are given once, by its migration; those to
monthly gifts and month statements are not: an older group is given them by hand.
A group that is gone, renamed ones included, is made again by the next migrate: one that is not wanted is kept empty.
"""

from typing import Any

from django.db import connections, router

GROUPS: dict[str, tuple[str, ...]] = {
    "Campaign managers": (
        # What is raised for. A campaign is closed, not deleted; a tier that is not offered any more is deleted.
        "view_campaign",
        "add_campaign",
        "change_campaign",
        "view_campaignmonth",
        "add_campaignmonth",
        "change_campaignmonth",
        "view_tier",
        "add_tier",
        "change_tier",
        "delete_tier",
        # The dashboard, and the gifts and followers that it links to, without donors' personal data.
        "view_monthtotal",
        "view_gift",
        "view_recurringgift",
        "view_follower",
    ),
    "Finance": (
        # The dashboard, the books that it must agree with, and who gave.
        "view_monthtotal",
        "view_gift",
        "view_recurringgift",
        "view_donor",
        "view_ledgerentry",
        "view_payout",
        # The quarantine: to see an event, and to accept, dismiss or replay it.
        "view_inboxevent",
        "change_inboxevent",
        # Refunds: to ask for one, and to see those that were asked for.
        "view_refundrequest",
        "add_refundrequest",
        # Offline gifts and adjustments: to see them, to enter one, and to approve or reject a colleague's.
        "view_offlinerequest",
        "add_offlinerequest",
        "change_offlinerequest",
        # Files: to download one, which is recorded, and to see who downloaded which.
        "view_exportrecord",
        "add_exportrecord",
        # Closed months: to close one, which stays, and to see what was closed by whom.
        "view_monthstatement",
        "add_monthstatement",
    ),
}


def install(using: str = "default", **signal: Any) -> None:
    """Make the groups that do not exist. Does nothing before the tables of users and permissions exist."""
    from django.contrib.auth.models import Group, Permission

    if not router.allow_migrate_model(using, Group):
        return
    tables = {Group._meta.db_table, Permission._meta.db_table}
    if not tables.issubset(connections[using].introspection.table_names()):
        return
    for name, codenames in GROUPS.items():
        group, is_new = Group.objects.using(using).get_or_create(name=name)
        if is_new:
            rights = Permission.objects.using(using).filter(content_type__app_label="donations", codename__in=codenames)
            group.permissions.set(rights)
