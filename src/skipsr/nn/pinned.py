"""Pinned memory of the host, of which a card copies while the host goes on.

torch rounds every pinned tensor up to a power of two, and keeps what was given back for another of
that size. So small things lie side by side in pieces of such sizes.
"""

_ALIGNED = 256  # bytes


def aligned(size: int) -> int:
    """Bytes of a place for so many, so that the next one begins where any dtype may."""
    return -(-size // _ALIGNED) * _ALIGNED


def power_above(size: int) -> int:
    """The power of two to which torch rounds that."""
    return 1 << max(0, size - 1).bit_length()
