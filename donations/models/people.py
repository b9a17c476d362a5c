"""People: the one table that holds who they are, and who follows."""

from django.db import models

LONGEST_EMAIL = 254


class Donor(models.Model):
    """Who gave or follows. Written by `giving`, `offline` and, with what the processor was told, by `booking`.

    `erasure` deletes it, and whatever else names that person.
    """

    email = models.EmailField(max_length=LONGEST_EMAIL, help_text="In small letters, so that one person is one row.")
    name = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["email"], name="one_donor_an_email")]

    def __str__(self) -> str:
        return self.name or self.email

    @classmethod
    def keep(cls, email: str, name: str = "") -> "Donor":
        """The donor of this address; a name that is on file is left alone, since anybody can type an address.

        Locked, in the caller's transaction: what names a donor is checked at its end alone, and by then they might be
        forgotten.
        """
        locked = cls.objects.select_for_update(no_key=True)
        return locked.get_or_create(email=email.lower(), defaults={"name": name})[0]


class Follower(models.Model):
    """Who chose $0; counts as a supporter once confirmed. Written by `giving`, `confirmed_*` by `projections`.

    `erasure` takes away whose it is, or the whole where it was never confirmed.
    """

    donor = models.ForeignKey(
        Donor, models.SET_NULL, null=True, related_name="follows", help_text="Empty: erased, and counted as before."
    )
    campaign = models.ForeignKey("Campaign", models.PROTECT, related_name="followers")
    source = models.CharField(max_length=60, blank=True)
    livemode = models.BooleanField()
    created_at = models.DateTimeField(auto_now_add=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    confirmed_month = models.CharField(max_length=7, blank=True, help_text="In the campaign's zone, like 2024-11.")
    confirmed_date = models.DateField(null=True, blank=True, help_text="In the campaign's zone.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["donor", "campaign", "livemode"], name="one_follow_a_campaign"),
            models.CheckConstraint(
                condition=models.Q(confirmed_at__isnull=True, confirmed_month="", confirmed_date__isnull=True)
                | (models.Q(confirmed_at__isnull=False, confirmed_date__isnull=False) & ~models.Q(confirmed_month="")),
                name="follower_confirmed_in_a_month",
            ),
        ]
        indexes = [models.Index(fields=["campaign", "confirmed_month"], name="followers_of_a_month")]

    def __str__(self) -> str:
        # Without who: it stands in titles and logs, also of those who may not see donors.
        return f"follower {self.pk} of {self.campaign_id}"
