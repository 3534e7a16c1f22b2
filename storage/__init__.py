"""Remembers: journals and the participants' ledger."""
