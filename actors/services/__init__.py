"""The participants of the order saga, on the ledger kit."""
