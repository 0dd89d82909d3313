"""How the C library's heap treats large blocks: kept for the next one, or given back to the system at once."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
LARGE_BYTES = 1 << 20


def give_back_at_once(least_bytes: int = LARGE_BYTES) -> bool:
    """From now on blocks of at least so many bytes are mapped one by one, and unmapped when they are freed.

    glibc raises that limit to 32 MiB by itself as blocks come and go. Smaller ones then share a heap whose holes stay
    with the process. What it costs: every new block is cleared by the system first.

    Returns:
        Whether the C library knows the setting (glibc does; musl, macOS and Windows do not).
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, least_bytes))
    except (AttributeError, OSError, TypeError):
        return False
