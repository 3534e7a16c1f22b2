"""Breaks: every history of one saga proved, and seeded histories of whole engines simulated."""
