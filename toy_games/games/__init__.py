"""The games that the experiments play."""
