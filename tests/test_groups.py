"""The staff's groups: made once, with the least rights, and never taken away from operators."""

from importlib import import_module
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.db import connection

from donations import groups

pytestmark = pytest.mark.django_db


def rights(name: str) -> set[str]:
    return set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))


@pytest.mark.parametrize("name", groups.GROUPS)
def test_migrate_makes_each_group_with_exactly_its_rights(name: str) -> None:
    assert rights(name) == set(groups.GROUPS[name])


def test_every_right_is_one_of_ours_and_named_once() -> None:
    ours = set(
        Permission.objects.filter(content_type__app_label="donations").values_list("codename", flat=True),
    )
    for named in groups.GROUPS.values():
        assert set(named) <= ours
        assert len(named) == len(set(named))


def test_nobody_is_given_a_right_to_write_what_the_application_alone_writes() -> None:
    written_by_code = {
        "gift",
        "recurringgift",
        "giftstate",
        "ledgerentry",
        "donor",
        "follower",
        "outboxmessage",
        "monthtotal",
    }
    for named in groups.GROUPS.values():
        for right in named:
            action, _, noun = right.partition("_")
            assert action == "view" or noun not in written_by_code, right


def test_managers_see_no_personal_data_and_finance_changes_no_campaign() -> None:
    managers, finance = set(groups.GROUPS["Campaign managers"]), set(groups.GROUPS["Finance"])
    assert not managers & {"view_donor", "view_inboxevent", "view_ledgerentry", "add_refundrequest"}
    assert not {right for right in managers if right.endswith("_offlinerequest")}
    assert not {right for right in finance if right.endswith(("_campaign", "_campaignmonth", "_tier", "_follower"))}


def test_a_second_migrate_keeps_what_operators_added_and_took_away() -> None:
    group = Group.objects.get(name="Finance")
    group.permissions.remove(Permission.objects.get(codename="view_donor"))
    group.permissions.add(Permission.objects.get(codename="view_campaign"))
    before = rights("Finance")
    call_command("migrate", verbosity=0)
    groups.install()
    assert rights("Finance") == before
    assert Group.objects.filter(name="Finance").count() == 1


def test_an_upgrade_gives_finance_the_rights_that_are_new_and_no_other_group() -> None:
    new = {"view_offlinerequest", "add_offlinerequest", "change_offlinerequest"}
    Permission.objects.filter(codename__endswith="_offlinerequest").delete()
    before = {name: rights(name) for name in groups.GROUPS}
    assert not before["Finance"] & new
    upgrade = import_module("donations.migrations.0007_offline").give_rights
    upgrade(apps, SimpleNamespace(connection=connection))
    assert rights("Finance") == before["Finance"] | new
    assert rights("Campaign managers") == before["Campaign managers"]
    call_command("migrate", verbosity=0)
    assert Permission.objects.filter(codename__endswith="_offlinerequest").count() == 4


def test_an_upgrade_makes_no_group_that_is_gone() -> None:
    Group.objects.all().delete()
    import_module("donations.migrations.0007_offline").give_rights(apps, SimpleNamespace(connection=connection))
    assert not Group.objects.exists()


def test_a_group_that_is_gone_is_made_again() -> None:
    Group.objects.all().delete()
    groups.install(app_config=apps.get_app_config("donations"), verbosity=0)
    assert rights("Campaign managers") == set(groups.GROUPS["Campaign managers"])


def test_nothing_is_done_before_the_tables_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    Group.objects.all().delete()
    monkeypatch.setattr(connection.introspection, "table_names", lambda *_: ["django_migrations"])
    groups.install()
    assert not Group.objects.exists()
