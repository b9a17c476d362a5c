"""Staff's sign-in. Strangers are stopped before it: the check of a password is slow on purpose, and keeps us busy."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import IPv4Address, ip_address, ip_network
from unicodedata import normalize

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

log = logging.getLogger(__name__)
MOST_FAILURES_OF_AN_ACCOUNT = 5  # from one network
MOST_FAILURES_OF_A_NETWORK = 20
FAILURES_LAST = 15 * 60.0
MOST_REMEMBERED = 10_000
PLACES = 2  # one whose password is checked, and one who waits: a server has four threads and more
PATIENCE = 2.0
COME_BACK_IN = 5

View = Callable[[HttpRequest], HttpResponse]


class Failures:
    """Who failed to sign in how often, in this process's memory. A limit that is reached holds for 15 minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.counts: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def seconds_to_wait(self, limits: dict[Hashable, int]) -> int:
        """How long until all of these are below their limits; 0: they are."""
        now = self.clock()
        with self.lock:
            ends = [self.counts[who][1] for who, most in limits.items() if self.counts.get(who, (0, 0.0))[0] >= most]
        return max([0, *(int(end - now) + 1 for end in ends if end > now)])

    def add(self, limits: dict[Hashable, int]) -> None:
        """Count one more failure of each."""
        now = self.clock()
        with self.lock:
            for who in limits:
                count, end = self.counts.pop(who, (0, 0.0))
                self.counts[who] = (count + 1 if end > now else 1, now + FAILURES_LAST)
            while len(self.counts) > MOST_REMEMBERED:
                self.counts.popitem(last=False)

    def forget(self, who: Hashable) -> None:
        """Somebody got in."""
        with self.lock:
            self.counts.pop(who, None)


class SignIn:
    """The admin's sign-in, with one password checked at a time, and a limit on wrong ones."""

    def __init__(self, view: View, failures: Failures | None = None) -> None:
        self.view = view
        self.failures = failures or Failures()
        self.places = threading.BoundedSemaphore(PLACES)
        self.checking = threading.Lock()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """What the admin answers; 429 for those who must wait, without a look at their password."""
        if request.method != "POST":
            return self.view(request)
        network = network_of(request.META.get("REMOTE_ADDR", ""))
        # As Django reads a name: letters that look otherwise and mean the same are no other account.
        account = (network, normalize("NFKC", request.POST.get("username", "")[:150]).strip().casefold())
        limits: dict[Hashable, int] = {network: MOST_FAILURES_OF_A_NETWORK, account: MOST_FAILURES_OF_AN_ACCOUNT}
        if seconds := self.failures.seconds_to_wait(limits):
            return _refusal(request, seconds, too_often=True)
        if not self.places.acquire(blocking=False):
            return _refusal(request, COME_BACK_IN)
        try:
            return self._check(request, limits, account)
        finally:
            self.places.release()

    def _check(self, request: HttpRequest, limits: dict[Hashable, int], account: Hashable) -> HttpResponse:
        if not self.checking.acquire(timeout=PATIENCE):
            return _refusal(request, COME_BACK_IN)
        try:
            response = self.view(request)
        finally:
            self.checking.release()
        if response.status_code == 302:
            self.failures.forget(account)
        else:
            self.failures.add(limits)
            if self.failures.seconds_to_wait(limits):
                log.warning("too many wrong passwords from one network: it is refused for 15 minutes")
        return response


def network_of(address: str) -> str:
    """Who calls: an IPv4 address, or the /64 that one household or machine has in IPv6."""
    try:
        place = ip_address(address)
    except ValueError:
        return ""
    return str(place) if isinstance(place, IPv4Address) else str(ip_network((place, 64), strict=False))


def _refusal(request: HttpRequest, seconds: int, *, too_often: bool = False) -> HttpResponse:
    context = {"too_often": too_often, "minutes": -(-seconds // 60)}
    response = render(request, "429.html", context, status=429)
    response["Retry-After"] = str(seconds)
    response["Cache-Control"] = "no-store"
    return response


sign_in = SignIn(admin.site.login)
