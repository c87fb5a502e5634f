"""Move `deploy`, keep its ledger, derive the tags."""
