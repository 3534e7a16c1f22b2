"""DBOS Transact, on SQLite and on PostgreSQL."""
