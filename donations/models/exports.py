"""Who took which file: the audit trail of finance's exports."""

from django.db import models


class ExportRecord(models.Model):
    """One download of a finance file. Written by `views.exports`; `as closed` is a closed month's ledger."""

    file = models.CharField(max_length=10)
    campaign = models.CharField(max_length=50, blank=True)
    period_start = models.DateField(null=True)
    period_end = models.DateField(null=True, help_text="The first day after the period.")
    requested_by = models.ForeignKey("auth.User", models.PROTECT, related_name="+")
    requested_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-requested_at"]

    def __str__(self) -> str:
        return f"{self.file} {self.requested_at:%Y-%m-%d %H:%M} UTC"
