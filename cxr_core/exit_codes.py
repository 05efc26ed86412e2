"""Exit codes of the commands of `cxr_core`; those that a search shares mean the same there."""

DONE = 0
USAGE = 2
"""A bad command line or recipe, a network that is none, or a film that is none among others that were predicted."""
UNUSABLE = 3
"""Data, disk or accelerator cannot be used."""
DIVERGED = 4
INTERRUPTED = 130
TERMINATED = 143
