"""The audit: what every stochastic loss estimates, by enumeration of all that can be drawn."""
