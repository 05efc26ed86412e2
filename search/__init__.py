"""The search: proposes trials, trains them through Ray, prunes, keeps the study, and finds out what its winner is worth."""
