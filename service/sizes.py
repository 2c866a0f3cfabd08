"""Bytes as people read them."""


def size_text(num_bytes: int) -> str:
    """In the binary unit that suits.

    >>> size_text(3 * 2**29), size_text(2**20)
    ('1.5 GiB', '1.0 MiB')
    """
    return f"{num_bytes / 2**30:,.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.1f} MiB"
