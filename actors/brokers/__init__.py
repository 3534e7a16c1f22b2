"""Participants, orders and outcomes over message brokers; each client library has one door."""
