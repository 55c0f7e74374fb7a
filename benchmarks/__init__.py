"""Timings of our solvers against their peers: `python -m benchmarks`."""
