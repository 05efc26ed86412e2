"""A full disk: told from other faults wherever it shows, as what was done by then is kept, and room can be made."""

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(fault: BaseException | None) -> bool:
    """Whether a fault, or one that caused it, is that a disk, a quota or a file's allowed size is full."""
    while fault is not None:
        if isinstance(fault, OSError) and fault.errno in _FULL:
            return True
        fault = fault.__cause__ or fault.__context__
    return False
