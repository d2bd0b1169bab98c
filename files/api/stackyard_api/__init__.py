"""Stackyard's api: items in PostgreSQL, read through Redis, behind nginx."""

__version__ = "1.0.0"
