"""Runs compared: tables and plots."""
