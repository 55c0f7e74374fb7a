"""Dynamics on tabular games: what happens to SGD where the exact theory makes a prediction."""
