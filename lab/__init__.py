"""What experiments and the trainer share; below it is theory only, and of that its errors.

settings and command (checked settings, as TOML and as options), specs (objectives as text), files
(whole or not at all), streams (random numbers by key), stats (intervals and slopes), sweep and
progress (parts that resume), evidence (measurements of claims, and pytest's plugin for them).
"""
