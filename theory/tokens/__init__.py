"""Token MDPs: states, recursions, experts estimated from real text."""
