"""A web page that was saved as a file: its main text is one record."""

from collections.abc import Iterator
from dataclasses import dataclass

from curation.sources import READERS
from curation.sources.batch import Parsed, ReadOptions, Rejected, Suffixes
from curation.sources.main_text import main_text
from curation.sources.opening import OpenedSource


@dataclass(frozen=True, kw_only=True)
class HtmlSuffixes(Suffixes):
    """Suffixes of HTML."""

    suffixes: tuple[str, ...] = (".htm", ".html", ".xhtml")


@READERS.register("html", HtmlSuffixes)
def read_html(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]:
    """Take the main text of one page as one row, with its title, author and date. Needs the extra ``web``.

    Raises
    ------
    SourceRefusedError : trafilatura is not installed.
    """
    page = source.stream.read(options.max_line_bytes + 1)
    if len(page) > options.max_line_bytes:
        yield Rejected(1, "line_too_long", f"a page of more than {options.max_line_bytes} bytes, which is what is read")
        return
    # The encoding of a page is stated in it; one that is given overrules it.
    encoding = None if options.encoding == ReadOptions(text_column="text").encoding else options.encoding
    found = main_text(page, source.path, encoding=encoding)
    if found is None:
        yield Rejected(1, "no_main_text", "no text is left beside menus, scripts and layout")
    else:
        yield Parsed(1, {options.text_column: found.pop("text")} | found)
