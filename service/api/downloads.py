"""Files of the reply's own, sent in pieces."""

from collections.abc import Iterator
from typing import BinaryIO

CHUNK_BYTES = 2**18


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """What is left of a file, which ends with it."""
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
