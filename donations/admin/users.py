"""Those who sign in: Django's own page, with times that nobody types."""

from typing import ClassVar

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User

admin.site.unregister(User)


@admin.register(User)
class StaffUserAdmin(UserAdmin):  # type: ignore[type-arg]  # Django's class takes no parameters when it runs
    """When somebody joined and signed in last is read, with its zone, as every time in the admin; fields had none."""

    readonly_fields: ClassVar = ("last_login", "date_joined")
