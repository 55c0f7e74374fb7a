"""What an objective is checked for: its formulas, and the theorems on random games."""
