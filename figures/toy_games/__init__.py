"""Figures of the dynamics on small games."""
