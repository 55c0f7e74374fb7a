"""The report: paper_repro.md, rendered from the records."""
