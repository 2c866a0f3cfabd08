"""Reading a source file as bounded batches."""

from collections.abc import Iterator

from catalog.errors import nearest
from catalog.registry import Member
from curation.sources import READERS, Reader
from curation.sources.batch import Batch, ReadOptions, batched, checked
from curation.sources.opening import COMPRESSIONS, inspect, opened, split_suffixes
from curation.sources.refusal import SourceRefusedError


def read_batches(path: str, options: ReadOptions) -> Iterator[Batch]:
    """Read a file in file order; the batches are a pure function of its bytes and the options.

    Memory is bounded by ``batch_bytes`` and ``max_line_bytes``, whatever the file's size. A bad row never ends the
    reading: it is in ``Batch.rejected`` with one of these reasons: ``invalid_json``, ``not_an_object``,
    ``missing_text``, ``empty_text``, ``text_not_string``, ``label_not_scalar``, ``invalid_fields``, ``invalid_utf8``,
    ``invalid_encoding``, ``nul_character``, ``lone_surrogate``, ``line_too_long``, ``ragged_row``, ``unclosed_quote``,
    ``invalid_csv``, ``turns_not_list``, ``invalid_turn``, ``damaged_record``, ``no_main_text``.

    Parameters
    ----------
    path : a local file; bzip2, gzip, xz and zstd are recognised by name and by their first bytes.
    options : columns, format, bounds.

    Raises
    ------
    NotFoundError : there is no such file, or no such format.
    SourceRefusedError : the whole file is refused; its ``reason`` says why. Damage in an uncompressed Parquet page or a
        changing file can surface after the first batches: commit nothing before the last one.
    """
    inspect(path)
    member = reader_of(path, options)
    with opened(path, options.max_ratio, packed=member.config().unpacks) as source:
        yield from batched(checked(member.member(source, options), options, path), options)


def reader_of(path: str, options: ReadOptions) -> Member[Reader]:
    """The reader that a file's suffix, or the options, ask for.

    Raises
    ------
    NotFoundError : no such format. SourceRefusedError : the suffix names none.
    """
    if options.format is not None:
        return READERS[options.format]
    by_suffix = {suffix: member for member in READERS.load().values() for suffix in member.config().suffixes}
    suffix, _ = split_suffixes(path)
    if suffix in by_suffix:
        return by_suffix[suffix]
    known = ", ".join(f"{one}" for one in sorted(by_suffix))
    close = nearest(suffix, by_suffix) if suffix else f"Known: {known}"
    raise SourceRefusedError(
        "unknown_format",
        f"{path}: the suffix {suffix!r} names no format; {close}, each also with {' or '.join(sorted(COMPRESSIONS))}. "
        f"Rename the file or name the format ({', '.join(READERS)})",
    )
