"""Web archives: WARC with the pages as they came, WET with their text."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from curation.sources import READERS
from curation.sources.batch import Parsed, ReadOptions, Rejected, Suffixes
from curation.sources.main_text import main_text, require
from curation.sources.opening import FREE_BYTES, OpenedSource, opened
from curation.sources.refusal import SourceRefusedError
from curation.sources.warc_records import BEGIN, members, plain_records

PAGES = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True, kw_only=True)
class WarcSuffixes(Suffixes):
    """Suffixes of web archives."""

    suffixes: tuple[str, ...] = (".warc", ".wet")
    unpacks: bool = True


@READERS.register("warc", WarcSuffixes)
def read_warc(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]:
    """Take the main text of every page as a row, with ``url``, ``date``, title and language; needs the extra ``web``.

    ``line`` is the number of the record in the archive, from 1. Requests, metadata, redirects and what is no page are
    no rows; texts of WET files (``conversion`` records) are taken as they are. A damaged record is rejected, and the
    next one looked for; one record is held at a time.

    Raises
    ------
    SourceRefusedError : no web archive, one that unpacks to more than ``max_ratio`` times its size, or the extra is not
        installed.
    """
    require("warcio", source.path)
    allowed = max(FREE_BYTES, int(options.max_ratio * source.size_bytes))
    if source.compression == "gzip":
        pieces = members(source.stream, options.max_line_bytes, allowed, source.path)
    elif source.compression is None:
        pieces = plain_records(source.stream, options.max_line_bytes)
    else:
        # One stream around all records: damage in it is damage to all of them.
        with opened(source.path, options.max_ratio) as unpacked:
            plain = OpenedSource(
                path=source.path, stream=unpacked.stream, size_bytes=source.size_bytes, compression=None
            )
            yield from read_warc(plain, options)
        return
    for number, piece in enumerate(pieces, 1):
        if number == 1 and not piece.problem and not piece.data.startswith(BEGIN):
            raise SourceRefusedError("not_warc", f"{source.path} begins with no WARC record")
        if piece.problem:
            yield Rejected(number, piece.problem, piece.detail)
        elif (row := _row(number, piece.data, source, options)) is not None:
            yield row


def _row(number: int, data: bytes, source: OpenedSource, options: ReadOptions) -> Parsed | Rejected | None:
    """The row of one record; None for one that is no page."""
    warcio = require("warcio", source.path)
    try:
        record = next(iter(warcio.ArchiveIterator(io.BytesIO(data))), None)
        if record is None:
            return Rejected(number, "damaged_record", "the record is empty")
        content = record.content_stream().read() if record.rec_type in ("response", "resource", "conversion") else b""
    except Exception as error:  # noqa: BLE001 - whatever the library makes of one record, the others are still to be read
        return Rejected(number, "damaged_record", f"{type(error).__name__}: {error}")
    header = record.rec_headers
    stated = {"url": header.get_header("WARC-Target-URI"), "date": header.get_header("WARC-Date")}
    kept = {name: value for name, value in stated.items() if value}
    if record.rec_type == "conversion":
        language = header.get_header("WARC-Identified-Content-Language")
        text = content.decode("utf-8", "replace")
        return Parsed(number, {options.text_column: text} | kept | ({"language": language} if language else {}))
    if record.rec_type not in ("response", "resource"):
        return None
    http = record.http_headers
    kind = (http.get_header("Content-Type") if http else header.get_header("Content-Type")) or ""
    status = http.get_statuscode() if http else "200"
    if kind.split(";")[0].strip().lower() not in PAGES or not str(status).startswith("2"):
        return None
    found = main_text(content, source.path, encoding=_charset(kind), url=kept.get("url"))
    if found is None:
        return Rejected(number, "no_main_text", f"no text is left of {kept.get('url', 'the page')} but its layout")
    published = {"published": found.pop("date")} if "date" in found else {}
    return Parsed(number, {options.text_column: found.pop("text")} | kept | published | found)


def _charset(kind: str) -> str | None:
    for one in kind.split(";")[1:]:
        name, _, value = one.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'") or None
    return None
