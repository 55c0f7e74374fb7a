"""From settings to runs: what cannot work is refused here."""
