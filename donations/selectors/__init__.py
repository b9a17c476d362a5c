"""Every read that more than one room needs, and the reads of whole pages, with typed results."""

from donations.selectors.reconciliation import LastReconciliation, last_reconciliation

__all__ = ["LastReconciliation", "last_reconciliation"]
