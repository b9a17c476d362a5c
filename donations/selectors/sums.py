"""What the ledger says of a gift, as SQL: the one place that knows which kinds make which sum."""

GIFT_KINDS = "('gift', 'offline_gift')"

SUMS = f"""
    SUM(CASE WHEN kind IN {GIFT_KINDS} THEN amount ELSE 0 END) AS charged,
    -SUM(CASE WHEN kind IN ('refund', 'refund_reversal') THEN amount ELSE 0 END) AS refunded,
    -SUM(CASE WHEN kind IN ('dispute_withdrawn', 'dispute_reinstated') THEN amount ELSE 0 END) AS disputed,
    SUM(CASE WHEN kind = 'adjustment' THEN amount ELSE 0 END) AS adjusted,
    SUM(goal_amount) AS goal,
    SUM(CASE WHEN kind <> 'fee' THEN amount ELSE 0 END) AS held
"""
"""Over the entries of one gift, minor units: what was paid, given back, taken back, put right by staff (signed);
toward the goal; still held."""

COUNTED = "CASE WHEN held <= 0 OR goal <= 0 THEN 0 WHEN goal < held THEN goal ELSE held END"
"""What the bar counts of a gift, from these sums: what we still hold of it, without its fee cover."""
