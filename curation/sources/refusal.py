"""The error that refuses a whole file."""

from catalog.errors import DataError


class SourceRefusedError(DataError):
    """A source file cannot be read as a whole; nothing of it may be kept.

    Parameters
    ----------
    reason : stable code, stored with the source: ``not_a_file``, ``unreadable``, ``empty_file``, ``unknown_format``,
        ``wrong_compression``, ``truncated``, ``corrupt``, ``decompression_bomb``, ``wrong_encoding``, ``not_parquet``,
        ``not_arrow``, ``not_an_array``, ``not_warc``, ``missing_package``, ``duplicate_column``, ``header_too_long``,
        ``missing_column`` or ``reader_died``.
    message : what is wrong with which file, and the remedy.
    """

    code = "source_refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
