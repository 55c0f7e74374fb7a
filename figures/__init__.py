"""Figures and the report: `python -m figures` makes both."""
