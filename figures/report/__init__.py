"""The report, paper_repro.md: records give statuses of clauses, answers are locked to them."""
