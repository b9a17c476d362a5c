"""The site's addresses: the admin's, and everything else from donations."""

from django.contrib import admin
from django.urls import include, path

from donations.views.sign_in import sign_in

urlpatterns = [
    # Before the admin's own, of the same address.
    path("admin/login/", sign_in),
    path("admin/", admin.site.urls),
    path("", include("donations.urls")),
]
