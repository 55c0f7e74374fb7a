"""The two equilibria of an anchored game (T10): fast, by cones, certified."""
