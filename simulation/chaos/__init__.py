"""Breaks a real engine on a real local Ray, process by process, and holds it to every promise."""
