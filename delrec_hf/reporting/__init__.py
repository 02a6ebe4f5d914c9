"""The report of finished runs: one page and its pictures."""
