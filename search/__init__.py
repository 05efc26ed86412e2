"""The search: proposes trials, trains them through Ray, prunes, keeps the study, finds out what its winner is worth."""
