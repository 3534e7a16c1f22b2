"""Sagas by hand on SQLite: a commit for each step, or one for all that wait."""
