"""Gives memory back to the host after a burst.

glibc keeps what was freed between live blocks; after a storm of observations that is 20 MB and more, beside a
model server that could use them. Trimming takes about a millisecond.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def trimmer() -> Callable[[], None]:
    """Return what trims the C heap; on a C library that cannot, it does nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return lambda: None

    def give_back() -> None:
        trim(0)

    return give_back
