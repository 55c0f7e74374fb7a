"""Figures of recorded language-model runs."""
