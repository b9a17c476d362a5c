"""Amounts in minor units: Stripe's limits, its exponents, and how the pages write them.

Sources: https://docs.stripe.com/currencies (minimum and maximum amounts, zero-decimal and three-decimal currencies).
"""

from .errors import ApiError

LARGEST = 99_999_999
MINIMUMS = {
    **dict.fromkeys("usd eur aud cad chf brl inr nzd sgd jpy".split(), 50),
    **dict.fromkeys("nok sek".split(), 300),
    **dict.fromkeys("aed myr pln ron".split(), 200),
    "gbp": 30,
    "dkk": 250,
    "hkd": 400,
    "mxn": 1000,
    "czk": 1500,
    "huf": 17500,
}
ZERO_DECIMAL = frozenset("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split())
THREE_DECIMAL = frozenset("bhd jod kwd omr tnd".split())
# Two decimals that must be 00, and three of which the last must be 0.
STEPS = {"isk": 100, "ugx": 100} | dict.fromkeys(THREE_DECIMAL, 10)
CURRENCIES = frozenset(
    "usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf "
    "clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf idr ils "
    "inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk "
    "mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp "
    "sle sos srd std szl thb tjs tnd top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer zar "
    "zmw".split()
)
SIGNS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥", "aud": "A$", "cad": "CA$", "nzd": "NZ$", "inr": "₹"}


def exponent(currency: str) -> int:
    """How many decimal places Stripe's minor unit stands for. ISK and UGX are sent times a hundred."""
    return 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2


def written(amount: int, currency: str) -> str:
    """2500 usd as $25.00; where there is no sign, 25.00 CZK."""
    places = exponent(currency)
    units, rest = divmod(abs(amount), 10**places)
    number = f"{units:,}" + (f".{rest:0{places}d}" if places else "")
    sign = "−" if amount < 0 else ""
    if currency in SIGNS:
        return f"{sign}{SIGNS[currency]}{number}"
    return f"{sign}{number} {currency.upper()}"


def currency(value: object, path: str) -> str:
    """A rule: a three-letter code that Stripe takes, in either case."""
    code = value.lower() if isinstance(value, str) else ""
    if code not in CURRENCIES:
        raise ApiError(
            f"Invalid currency: {code}. Stripe currently supports these currencies: {', '.join(sorted(CURRENCIES))}",
            param=path,
        )
    return code


def check_total(amount: int, code: str) -> None:
    """Refuse a checkout's total that Stripe would refuse."""
    minimum = MINIMUMS.get(code, 1)
    if amount < minimum:
        raise ApiError(
            f"The Checkout Session's total amount due must add up to at least {written(minimum, code)} {code}",
            code="amount_too_small",
        )
    if amount > LARGEST:
        raise ApiError(
            f"The Checkout Session's total amount due must be no more than {written(LARGEST, code)} {code}",
            code="amount_too_large",
        )
    check_step(amount, code)


def check_step(amount: int, code: str, param: str = "") -> None:
    """Refuse an amount that Stripe cannot move in this currency."""
    step = STEPS.get(code, 1)
    if amount % step:
        digits = "last digit" if step == 10 else "last two digits"
        raise ApiError(
            f"Invalid amount: the {digits} of an amount in {code} must be {str(step)[1:]}.",
            code="invalid_charge_amount",
            param=param,
        )
