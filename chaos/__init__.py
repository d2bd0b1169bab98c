"""Faults at random under load, and what became of requests and rows: python -m chaos."""
