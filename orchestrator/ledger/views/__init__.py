"""Questions that commands and reports ask the ledger."""
