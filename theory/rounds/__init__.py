"""Exact rounds of self-play: two steps, one loss on one model, in a class; their certificate."""
