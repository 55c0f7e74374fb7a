"""The experiments: each a module with SUMMARY, Settings and cells(settings)."""
