"""Figures of the exact theory."""
