"""The site's addresses: the admin's, and everything else from donations."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("donations.urls")),
]
