"""The addresses of the application. Others build on them: they change only with a version."""

from django.urls import path

from donations.views import demo, embed, exports, giving, health, monthly, staff, staff_health, webhooks

urlpatterns = [
    # What machines ask for, many times a second, is found first.
    path("webhooks/stripe/", webhooks.stripe, name="webhook-stripe"),
    path("embed/v1/meter", embed.meter, name="meter"),
    path("embed/v1/meter.json", embed.meter_json, name="meter-json"),
    path("embed/v1/meter.svg", embed.meter_svg, name="meter-svg"),
    path("", giving.home, name="home"),
    path("give/", giving.home),
    path("give/<slug:campaign>/", giving.give, name="give"),
    path("thanks/<str:token>/", giving.thanks, name="thanks"),
    path("manage/<str:token>/", monthly.manage, name="manage"),
    path("follow/<str:token>/", giving.follow, name="follow"),
    path("embed/", embed.snippets, name="embed"),
    path("staff/", staff.this_month, name="staff"),
    path("staff/health/", staff_health.page, name="staff-health"),
    path("staff/exports/", exports.page, name="staff-exports"),
    path("staff/exports/<slug:file>.csv", exports.download, name="staff-export-file"),
    path("staff/<slug:campaign>/<str:month>/", staff.month, name="staff-month"),
    path("demo/article/", demo.article, name="demo-article"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics_text, name="metrics"),
]
