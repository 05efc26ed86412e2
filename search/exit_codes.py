"""Exit codes of the commands of a search."""

DONE = 0
USAGE = 2
"""A bad command line or space, or a study that exists or does not."""
PREFLIGHT = 3
"""Data, disk, accelerator or server cannot be used."""
NO_VALID_TRIAL = 4
STOPPED = 5
"""Ended early by a signal; the study can be resumed."""
KILLED = 130
"""Ended by SIGINT while no trial ran, before a search or after it, or by a second signal (143 for SIGTERM)."""
