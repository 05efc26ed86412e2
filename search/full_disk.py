"""A full disk: found out wherever it shows, it stops a search so that it can be resumed once there is room."""

import errno

DISK = "disk"
"""Why a search stops then."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(fault: BaseException | None) -> bool:
    """Whether a fault, or one that caused it, is that a disk or a quota is full."""
    while fault is not None:
        if isinstance(fault, OSError) and fault.errno in _FULL:
            return True
        fault = fault.__cause__ or fault.__context__
    return False
