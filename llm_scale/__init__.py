"""A single-GPU self-play trainer for small language models that measures the theory meanwhile."""
