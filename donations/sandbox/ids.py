"""Random ids that look like Stripe's. Only the prefix means something."""

import secrets
import string

LETTERS = string.ascii_letters + string.digits
SHAPES = {
    "checkout.session": ("cs_test_a1", 56),
    "payment_intent": ("pi_3", 23),
    "charge": ("ch_3", 23),
    "refund": ("re_3", 23),
    "event": ("evt_1", 23),
    "payment_method": ("pm_1", 23),
    "balance_transaction": ("txn_3", 23),
    "item": ("li_1", 23),
    "price": ("price_1", 23),
    "product": ("prod_", 14),
    "request": ("req_", 14),
    "customer": ("cus_", 14),
    "subscription": ("sub_1", 23),
    "subscription_item": ("si_", 14),
    "invoice": ("in_1", 23),
    "line_item": ("il_1", 23),
    "invoice_payment": ("inpay_1", 23),
    "dispute": ("du_1", 23),
    "payout": ("po_1", 23),
    "billing_portal.session": ("bps_1", 23),
}


def new_id(kind: str) -> str:
    """A fresh id for an object of this kind."""
    prefix, length = SHAPES[kind]
    return prefix + random_text(length)


def random_text(length: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(length))
