"""The report of make chaos."""
