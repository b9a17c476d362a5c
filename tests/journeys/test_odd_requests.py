"""Ten thousand forged, malformed, oversized and odd requests: none is taken, none breaks anything, none is stored."""

import hashlib
import hmac
import http.client
import json
import random
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, quote_from_bytes, urlencode

import pytest

from tests.house import EmbeddedHouse, House, opened

REQUESTS = 10_000
WORKERS = 8
LARGEST_BODY = 256 * 1024
SECRET_OF_ANOTHER = "whsec_of_another_site"
FORM = "application/x-www-form-urlencoded"
# Said where a connection ends without an answer: the server may hang up on what is no HTTP.
HUNG_UP = 0


@dataclass(frozen=True)
class Odd:
    """One request. `raw` is sent as it is; without it, a request is made of the rest.

    An incomplete one leaves the server waiting for more, until we hang up.
    """

    kind: str
    method: str = "POST"
    target: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    raw: bytes = b""
    incomplete: bool = False


@dataclass
class Maker:
    """Makes odd requests, each of another kind, by the run's seed."""

    rng: random.Random
    site: str
    page: str
    values: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = ["", " ", "0", "-1", "NaN", "1e309", "9" * 400, "\x00", "a\x00b", "\r\nX: y", "é", "\u202e", "😀"]
        self.values += ["../../etc/passwd", "' OR 1=1 --", "<script>", "${7*7}", "{{7*7}}", "%00", "%", "a" * 5000]
        self.values += [
            "null",
            "[]",
            "2024-13",
            "0000-00",
            "٢٠٢٤-١١",
            "2024-11 ",
            "general",
            "\ud7ff",
            "\ufffe",
            "﷽" * 20,
        ]

    def make(self) -> Odd:
        kinds: list[tuple[Callable[[], Odd], int]] = [
            (self.webhook, 45),
            (self.give, 20),
            (self.meter, 12),
            (self.token, 10),
            (self.noise, 13),
        ]
        makers, weights = zip(*kinds, strict=True)
        return self.rng.choices(makers, weights)[0]()

    # ---- to the webhook: everything but a signature of ours

    def webhook(self) -> Odd:
        body = self.event()
        kind, headers = self.rng.choice(list(self.signatures(body).items()))
        if self.rng.random() < 0.3:
            body = self.rng.choice(self.bodies())
        if kind == "signed":
            # Signed by another, and sent as it is: the one that looks most like a delivery.
            return Odd("webhook: signed by another", target="/webhooks/stripe/", headers=headers, body=body)
        oddity = self.rng.choice((self.as_it_is, self.as_it_is, self.other_method, self.odd_length, self.odd_type))
        return oddity(Odd(f"webhook: {kind}", target="/webhooks/stripe/", headers=headers, body=body))

    def event(self) -> bytes:
        session = {
            "id": "cs_test_1",
            "mode": "payment",
            "payment_status": "paid",
            "amount_total": 50000,
            "currency": "usd",
            "metadata": {"gift": "gift_" + "0" * 26, "campaign": "general"},
            "payment_intent": f"pi_{self.rng.randrange(10**9)}",
        }
        told = {
            "id": f"evt_{self.rng.randrange(10**9)}",
            "type": "checkout.session.completed",
            "created": int(time.time()),
            "livemode": False,
            "data": {"object": session},
        }
        return json.dumps(told, indent=2).encode()

    def signatures(self, body: bytes) -> dict[str, tuple[tuple[str, str], ...]]:
        now = int(time.time())
        signed = self.signature(body, now)
        headers = {
            "unsigned": "",
            "signed": signed,
            "expired": self.signature(body, now - 3600),
            "future": self.signature(body, now + 3600),
            "no time": signed.partition(",")[2],
            "two times": f"t={now},{signed}",
            "no signature": f"t={now}",
            "empty parts": f",,t={now},,v1=,=,",
            "random": f"t={now},v1={self.rng.randbytes(32).hex()}",
            "many": f"t={now}" + f",v1={self.rng.randbytes(32).hex()}" * 25,
            "long": f"t={now},v1={'0' * self.rng.randrange(1000, 6000)}",
            "not ASCII": f"t={now},v1=é{self.rng.randrange(9)}",
            "odd": self.rng.choice([value for value in self.values if value.isprintable()])[:2000],
        }
        made = {kind: (("Stripe-Signature", header),) for kind, header in headers.items() if header}
        made["unsigned"] = ()
        made["sent twice"] = (("Stripe-Signature", signed), ("Stripe-Signature", f"t={now},v1=0"))
        return made

    def signature(self, body: bytes, moment: int) -> str:
        signed = hmac.new(SECRET_OF_ANOTHER.encode(), b"%d." % moment + body, hashlib.sha256).hexdigest()
        return f"t={moment},v1={signed}"

    def bodies(self) -> list[bytes]:
        return [
            b"",
            b"null",
            b"[]",
            b'{"id": "evt_1"}',
            b"[" * self.rng.randrange(50_000),
            b'{"id": "evt_1", "type": "a", "n": ' + b"9" * self.rng.randrange(50_000) + b"}",
            b'{"id": "evt_1", "type": "\\u0000\\ud800", "n": NaN}',
            self.rng.randbytes(self.rng.randrange(2000)),
            b" " * self.rng.choice((LARGEST_BODY, LARGEST_BODY + 1, 2 * LARGEST_BODY)),
        ]

    # ---- how anything is sent

    def as_it_is(self, request: Odd) -> Odd:
        return request

    def other_method(self, request: Odd) -> Odd:
        method = self.rng.choice(("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "post"))
        return replace(request, kind=f"{request.kind}, {method}", method=method)

    def odd_length(self, request: Odd) -> Odd:
        body, true = request.body, len(request.body)
        length = self.rng.choice((true // 2, true + 10, LARGEST_BODY + 1, 10**11, 10**30, -1, 0))
        told = self.rng.choice((str(length), "abc", "", "1, 2", f"+{true}", "0x10", "chunked", "broken chunks", "both"))
        heads = [*request.headers, ("Host", self.site.partition("//")[2]), ("Connection", "close")]
        if told in {"chunked", "both"}:
            heads.append(("Transfer-Encoding", "chunked"))
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        if told == "broken chunks":
            heads.append(("Transfer-Encoding", "chunked"))
            body = b"zz\r\n" + body
        elif told != "chunked":
            heads.append(("Content-Length", str(true) if told == "both" else told))
        lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in heads)]
        raw = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body
        return replace(request, kind=f"{request.kind}, length {told[:20]}", raw=raw, incomplete=told != "chunked")

    def odd_type(self, request: Odd) -> Odd:
        types = [
            "text/plain",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=é",
        ]
        types += [
            "multipart/form-data; boundary=" + "a" * 300,
            "application/json",
            "*/*",
            "a/b; charset",
            ";;;",
            "",
            "é/é",
        ]
        types += ["a/b; x*=zip''%ff", "a/b; x*=undefined''%ff", "a/b; x*=nonsense''%ff", "a/b; x*0*=a''b; x*2=c"]
        types += [f"{kind}; charset={name}" for kind in (FORM, "multipart/form-data; boundary=x") for name in CHARSETS]
        chosen = self.rng.choice(types)
        kept = tuple((name, value) for name, value in request.headers if name != "Content-Type")
        return replace(request, kind=f"{request.kind}, {chosen[:60]}", headers=(*kept, ("Content-Type", chosen)))

    # ---- to the donation page: each a form that would be taken, but for one thing

    def give(self) -> Odd:
        own = (("Origin", self.site), ("Sec-Fetch-Site", "same-origin"), ("Content-Type", FORM))
        good = {"page": self.page, "tier": "50000", "name": "A reader", "email": "reader@example.org"}
        value = self.rng.choice(self.values)
        fields: dict[str, dict[str, str]] = {
            "another page's token": {"page": value},
            "a forged token": {"page": self.page[:-1] + "!"},
            "an odd tier": {"tier": value + "x"},
            "an odd amount": {"tier": "custom", "amount": value + "x"},
            "a NUL in a name": {"name": "a\x00b"},
            "a long message": {"message": "m" * self.rng.randrange(501, 50_000)},
            "a large form": {"message": "m" * 400_000},
            "an odd address": {"tier": "0", "email": value},
        }
        headers = {
            "no token, no origin": own[2:],
            "another site": (("Origin", "https://elsewhere.example"), own[2]),
            "no site": (("Origin", "null"), own[2]),
            "cross-site": (own[0], ("Sec-Fetch-Site", "cross-site"), own[2]),
            "a form as JSON": (*own[:2], ("Content-Type", "application/json")),
            "parts without end": (*own[:2], ("Content-Type", "multipart/form-data; boundary=x")),
        }
        bodies = {
            "no fields": b"",
            "no token, no origin": b"tier=50000",
            "many fields": urlencode(good).encode() + b"&x=y" * 3000,
            "random bytes": self.rng.randbytes(500),
            "no UTF-8": f"page={quote(self.page)}&tier=".encode() + b"%FF%FE",
            "a form as JSON": json.dumps(good).encode(),
            "parts without end": b"--x\r\n" * 9,
        }
        kind = self.rng.choice(sorted(fields.keys() | headers.keys() | bodies.keys()))
        body = bodies[kind] if kind in bodies else urlencode(good | fields.get(kind, {})).encode()
        request = Odd(f"give: {kind}", target="/give/general/", headers=headers.get(kind, own), body=body)
        if kind in {"no fields", "random bytes", "another site"}:
            request = self.rng.choice((self.as_it_is, self.odd_type, self.odd_length, self.other_method))(request)
        return request

    # ---- to what is only read

    def meter(self) -> Odd:
        target = self.rng.choice(("/embed/v1/meter", "/embed/v1/meter.json"))
        asked = {name: self.rng.choice(self.values) for name in ("campaign", "month") if self.rng.random() < 0.6}
        query = self.rng.choices(
            (urlencode(asked), quote_from_bytes(self.rng.randbytes(40), safe="&=%?/"), "&x=y" * 3000), (80, 15, 5)
        )[0]
        odd = self.rng.choice([value for value in self.values if value.isprintable()])[:3000]
        headers = ((self.rng.choice(("If-None-Match", "Accept", "Cookie", "Range", "X-Forwarded-For")), odd),)
        method = self.rng.choice(("GET", "GET", "HEAD", "POST", "DELETE"))
        request = Odd(f"meter: {method}", method, f"{target}?{query}", headers)
        return self.odd_type(request) if self.rng.random() < 0.3 else request

    def token(self) -> Odd:
        tokens = [quote(value, safe="") for value in self.values]
        tokens += [
            "1",
            "1:" + "A" * 43,
            "gift_" + "0" * 26 + ":" + "A" * 43,
            self.page,
            ":",
            "::::",
            "%ff%fe",
            "%00",
            ".",
        ]
        room = self.rng.choice(("thanks", "follow"))
        method = self.rng.choice(("GET", "GET", "HEAD", "POST", "PUT"))
        headers = self.rng.choice(((), (("Origin", self.site),), (("Origin", "https://elsewhere.example"),)))
        request = Odd(f"{room}: {method}", method, f"/{room}/{self.rng.choice(tokens)}/", headers)
        return self.odd_type(request) if self.rng.random() < 0.2 else request

    # ---- what is hardly HTTP

    def noise(self) -> Odd:
        good = b"POST /webhooks/stripe/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
        changed = bytearray(good)
        for _ in range(self.rng.randrange(1, 8)):
            changed[self.rng.randrange(len(changed))] = self.rng.randrange(256)
        kind, raw = self.rng.choice(
            (
                ("random bytes", self.rng.randbytes(self.rng.randrange(1, 400))),
                ("changed bytes", bytes(changed)),
                ("cut off", good[: self.rng.randrange(1, len(good))]),
                (
                    "another host",
                    good.replace(b"127.0.0.1", self.rng.choice((b"a.example", b"", b"a b", b"\xff", b"[::"))),
                ),
                ("no host", good.replace(b"Host: 127.0.0.1\r\n", b"")),
                ("two hosts", good.replace(b"Host:", b"Host: a.example\r\nHost:")),
                ("a long header", good.replace(b"Host:", b"X: " + b"x" * 70_000 + b"\r\nHost:")),
                ("many headers", good.replace(b"Host:", b"X: x\r\n" * 300 + b"Host:")),
                ("a long address", good.replace(b"/webhooks/stripe/", b"/thanks/" + b"a" * 70_000 + b"/")),
                ("another version", good.replace(b"HTTP/1.1", self.rng.choice((b"HTTP/1.0", b"HTTP/9.9", b"", b"x")))),
                ("two at once", good.replace(b"close", b"keep-alive") + good),
                ("a whole address", good.replace(b"/webhooks", b"http://elsewhere.example/webhooks")),
                ("the other encryption", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + self.rng.randbytes(100)),
                (
                    "wants to continue",
                    good.replace(b"Content-Length: 2", b"Content-Length: 9999\r\nExpect: 100-continue"),
                ),
            )
        )
        return Odd(f"noise: {kind}", raw=raw, incomplete=True)


CHARSETS = ["utf-8", "utf-16", "utf-7", "latin-1", "ascii", "base64", "rot13", "zip", "idna", "punycode", "undefined"]
CHARSETS += ["unicode_escape", "raw_unicode_escape", "mbcs", "nonsense", "é", "\x01", "", "a" * 300]


# ---- sending


class Sender:
    """Sends requests, through a client library or over a bare socket, each on a connection of its own.

    The server closes a connection after an odd request: a next one on the same would be lost.
    """

    def __init__(self, site: str) -> None:
        self.site = site
        host, _, port = site.partition("//")[2].partition(":")
        self.address = (host, int(port))

    def status_of(self, request: Odd, *, bare: bool) -> int:
        if request.raw:
            return self.bare(request.raw, patience=0.5 if request.incomplete else 20)
        if bare:
            return self.bare(self.written(request))
        try:
            return self.by_library(request)
        except ValueError:
            # The library will not send this.
            return self.bare(self.written(request))
        except (OSError, http.client.HTTPException):
            return HUNG_UP

    def by_library(self, request: Odd) -> int:
        with closing(http.client.HTTPConnection(*self.address, timeout=20)) as connection:
            connection.putrequest(request.method, request.target)
            for name, value in self.heads_of(request):
                connection.putheader(name, value.encode())
            connection.endheaders(request.body)
            return connection.getresponse().status

    def written(self, request: Odd) -> bytes:
        heads = [("Host", self.site.partition("//")[2]), *self.heads_of(request)]
        lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in heads)]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + request.body

    def heads_of(self, request: Odd) -> list[tuple[str, str]]:
        heads = [*request.headers, ("Connection", "close")]
        if not any(name == "Transfer-Encoding" for name, _ in heads):
            heads.append(("Content-Length", str(len(request.body))))
        return heads

    def bare(self, sent: bytes, patience: float = 20) -> int:
        """Send bytes, and read how the server answers them."""
        received = b""
        with socket.create_connection(self.address, timeout=patience) as connection, suppress(OSError):
            # A server may answer, and hang up, before it has read all.
            with suppress(OSError):
                connection.sendall(sent)
            while len(received) < 100 and (part := connection.recv(65536)):
                received += part
        return self.first_status(received)

    def first_status(self, received: bytes) -> int:
        words = received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").split(None, 2)
        return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else HUNG_UP


def is_turned_away(request: Odd, status: int) -> bool:
    """A post is refused as the caller's fault; a page that is only read may also be shown. Nobody ever sees a 5xx."""
    if request.raw:
        return status == HUNG_UP or 400 <= status < 500
    if status == HUNG_UP:
        # The answer to a large body may come, and be lost, while it is still being sent.
        return len(request.body) >= LARGEST_BODY
    return (400 if request.method == "POST" else 200) <= status < 500


def stored(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables but one: when the site looked at itself last."""
    with closing(sqlite3.connect(f"file:{folder}/db.sqlite3?mode=ro", uri=True)) as database:
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'donations_checkresult'"
        names = [name for (name,) in database.execute(tables)]
        return {name: sorted(database.execute(f'SELECT * FROM "{name}"'), key=str) for name in names}


def stored_at_rest(home: House) -> dict[str, list[tuple[object, ...]]]:
    """All rows, once nothing has been delivered, looked up, booked or mailed for a while."""
    home.manage("reconcile")  # what the site would do by itself, now and not in half a minute
    before: dict[str, list[tuple[object, ...]]] = {}
    for _ in range(60):
        now = stored(home.folder)
        if now == before:
            return now
        before = now
        time.sleep(2)
    raise AssertionError("it does not come to rest")


PRODUCTION = """
from supportsite.settings import *
# Static files come from where they stand: nothing has collected them.
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
WHITENOISE_USE_FINDERS = True
"""


@contextmanager
def house_of_production(folder: Path, prepared: Path) -> Iterator[House]:
    """A house without debugging, which would make a long page of each error."""
    (folder / "settings_of_production.py").write_text(PRODUCTION)
    built = EmbeddedHouse(folder, prepared)
    built.environment |= {"DJANGO_SETTINGS_MODULE": "settings_of_production", "PYTHONPATH": str(folder)}
    built.environment |= {"DEBUG": "0", "SANDBOX": "1", "ALLOWED_HOSTS": "127.0.0.1"}
    with opened(built):
        yield built


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_odd_requests_are_turned_away_and_leave_nothing(
    tmp_path: Path, prepared: Path, rng: random.Random
) -> None:
    with house_of_production(tmp_path, prepared) as home:
        home.pay(home.checkout(email="reader@example.org"))
        home.await_meter(raised=50000)
        before = stored_at_rest(home)
        assert all(before[f"donations_{table}"] for table in ("inboxevent", "gift", "ledgerentry", "donor"))
        maker = Maker(rng, home.site, home.page_token())
        requests = [maker.make() for _ in range(REQUESTS)]
        wrong = wrongly_answered(home, requests)
        assert not wrong, "\n".join(wrong[:20])
        assert stored(tmp_path) == before
        assert "Internal Server Error" not in (tmp_path / "site.log").read_text(errors="replace")
        # And it is as well as before.
        home.pay(home.checkout())
        home.await_meter(raised=100000)


def wrongly_answered(home: House, requests: list[Odd]) -> list[str]:
    def ask(numbered: tuple[int, Odd]) -> int:
        number, request = numbered
        return sender.status_of(request, bare=number % 2 == 0)

    sender = Sender(home.site)
    with ThreadPoolExecutor(WORKERS) as pool:
        statuses = list(pool.map(ask, enumerate(requests)))
    answered = list(zip(statuses, requests, strict=True))
    hung_up = Counter(request.kind for status, request in answered if status == HUNG_UP)
    # The server answered nearly all of them: it did not just hang up.
    assert hung_up.total() < len(requests) / 10, hung_up
    return [str((status, request))[:600] for status, request in answered if not is_turned_away(request, status)]
