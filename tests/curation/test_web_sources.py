"""Web archives and pages: main text and where it came from; damaged records cost themselves alone."""

import gzip
import lzma
import sys

import pytest

from curation.sources import ReadOptions, SourceRefusedError, read_batches, warc_records
from curation.sources.main_text import main_text

PAGE = """<html lang="ko"><head><title>제목 {n}</title><meta charset="{charset}"></head><body><nav><a href="/">Home</a>
<a href="/b">Menu</a></nav><article><h1>제목 {n}</h1><p>{text}</p><p>두 번째 문단도 충분히 길게 이어집니다. 여기에
{n} 번째 이야기가 있습니다.</p></article><footer>Copyright</footer><script>alert(1)</script></body></html>"""
SAID = "오늘 서울의 날씨는 맑고 바람이 조금 붑니다. 내일은 비가 올 수도 있다고 합니다. "


def page(number: int, charset: str = "utf-8") -> bytes:
    # What the page says of its encoding may be wrong: the server knows better.
    return PAGE.format(n=number, charset="utf-8", text=SAID * 3).encode(charset)


def record(kind: str, url: str, content: bytes, *, packed: bool, **headers: str) -> bytes:
    """One record of an archive, a member of its own where it is packed."""
    stated = {"WARC-Type": kind, "WARC-Target-URI": url, "WARC-Date": "2026-01-02T03:04:05Z", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in stated.items()]
    head = "\r\n".join(["WARC/1.0", *lines, f"Content-Length: {len(content)}"])
    data = head.encode() + b"\r\n\r\n" + content + b"\r\n\r\n"
    return gzip.compress(data) if packed else data


def response(url: str, body: bytes, *, packed: bool, kind: str = "text/html") -> bytes:
    content = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + body
    return record("response", url, content, packed=packed, Content_Type="application/http; msgtype=response")


def archive(*, packed: bool, pages: int = 4) -> list[bytes]:
    """Records one by one: a description, then request and page by turns."""
    made = [record("warcinfo", "", b"software: test\r\n", packed=packed)]
    for number in range(pages):
        url = f"http://example.com/{number}"
        made.append(record("request", url, b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", packed=packed))
        charset = "euc-kr" if number == 1 else "utf-8"
        made.append(response(url, page(number, charset), packed=packed, kind=f"text/html; charset={charset}"))
    return made


def read(path, data: bytes, **options):
    path.write_bytes(data)
    batches = list(read_batches(str(path), ReadOptions(text_column="text", **options)))
    rows = [row for one in batches for row in one.records.to_dicts()]
    return rows, [row for one in batches for row in one.rejected.rows()]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.xz"])
def test_pages_become_rows_with_their_address_in_any_packing(tmp_path, name):
    data = b"".join(archive(packed=name.endswith("gz")))
    rows, rejected = read(tmp_path / name, lzma.compress(data) if name.endswith("xz") else data)
    assert rejected == []
    assert [row["line"] for row in rows] == [3, 5, 7, 9]
    for number, row in enumerate(rows):
        assert SAID.strip() in row["text"]
        assert f"{number} 번째" in row["text"]
        assert "alert" not in row["text"]
        assert "Menu" not in row["text"]
        assert f'"url":"http://example.com/{number}"' in row["fields"]
        assert f'"title":"제목 {number}"' in row["fields"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_record_costs_itself_alone(tmp_path, packed):
    records = archive(packed=packed)
    hurt = bytearray(records[4])
    # In the middle of the compressed data, or in what tells how long the record is.
    place = len(hurt) // 2 if packed else hurt.index(b"Content-Length: ") + 16
    hurt[place : place + 4] = b"\xff\x00\xff\x00" if packed else b"9999"
    rows, rejected = read(tmp_path / f"a.warc{'.gz' if packed else ''}", b"".join([*records[:4], hurt, *records[5:]]))
    assert [row["fields"].split("example.com/")[1][0] for row in rows] == ["0", "2", "3"]
    assert [(line, reason) for line, reason, _ in rejected] == [(5, "damaged_record")]
    half = b"".join(records)[:-300]
    rows, rejected = read(tmp_path / f"b.warc{'.gz' if packed else ''}", half)
    assert len(rows) == 3
    assert [(line, reason) for line, reason, _ in rejected] == [(9, "damaged_record")]
    assert "half-written" in rejected[0][2]


@pytest.mark.parametrize("packed", [False, True])
def test_a_record_that_is_too_long_is_passed_over(tmp_path, packed):
    records = archive(packed=packed, pages=2)
    long = response("http://example.com/long", b"<p>word " * 100_000, packed=packed)
    data = b"".join([*records[:3], long, *records[3:]])
    rows, rejected = read(tmp_path / f"a.warc{'.gz' if packed else ''}", data, max_line_bytes=20_000)
    assert len(rows) == 2
    assert [(line, reason) for line, reason, _ in rejected] == [(4, "line_too_long")]


def test_a_record_that_was_cut_off_does_not_swallow_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(warc_records, "_CHUNK_BYTES", 64)
    records = archive(packed=True)
    # Stored, not compressed: what follows is taken for the rest of the block, and the damage shows only behind it.
    stored = gzip.compress(gzip.decompress(records[2]), compresslevel=0)[:-200]
    rows, rejected = read(tmp_path / "a.warc.gz", b"".join([*records[:2], stored, *records[3:]]))
    assert [row["fields"].split("example.com/")[1][0] for row in rows] == ["1", "2", "3"]
    assert [(line, reason) for line, reason, _ in rejected] == [(3, "damaged_record")]


def test_texts_of_a_wet_file_are_taken_as_they_are(tmp_path):
    language = {"WARC-Identified-Content-Language": "kor"}
    data = b"".join(
        record("conversion", f"http://example.com/{n}", f"본문 {n}\n둘째 줄".encode(), packed=True, **language)
        for n in range(2)
    )
    rows, rejected = read(tmp_path / "a.warc.wet.gz", data)
    assert ([row["text"] for row in rows], rejected) == (["본문 0\n둘째 줄", "본문 1\n둘째 줄"], [])
    assert '"language":"kor"' in rows[0]["fields"]


def test_a_saved_page_is_one_row_and_one_without_text_is_rejected(tmp_path):
    ((row,), rejected) = read(tmp_path / "a.html", page(1))
    assert (rejected, row["line"]) == ([], 1)
    assert SAID.strip() in row["text"]
    assert "alert" not in row["text"]
    assert '"title":"제목 1"' in row["fields"]
    assert read(tmp_path / "b.html.gz", gzip.compress(page(1)))[0] == [row]
    rows, rejected = read(tmp_path / "c.html", b"<html><body><script>1</script></body></html>")
    assert (rows, [one[1] for one in rejected]) == ([], ["no_main_text"])


def test_what_is_no_archive_and_a_missing_package_are_refused(tmp_path, monkeypatch):
    with pytest.raises(SourceRefusedError) as raised:
        read(tmp_path / "a.warc.gz", gzip.compress(b"plain text"))
    assert raised.value.reason == "not_warc"
    with pytest.raises(SourceRefusedError) as raised:
        read(tmp_path / "b.warc.gz", gzip.compress(b"WARC/1.0\r\n" + b"\0" * 100_000_000))
    assert raised.value.reason == "decompression_bomb"
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(SourceRefusedError, match=r"pip install 'winnow\[web\]'"):
        read(tmp_path / "a.html", page(1))


def test_the_encoding_that_was_stated_is_tried_first():
    words = "날씨가 오늘은 참 좋고 이번 주말까지 계속 맑을 것이라고 합니다. " * 4
    page = f"<html><body><article><p>{words}</p></article></body></html>"
    assert main_text(page.encode("euc-kr"), "a.html", encoding="euc-kr")["text"] == words.strip()
    told = f"<html><body><article><p>{'The weather is fine today. ' * 8}</p></article></body></html>".encode("cp037")
    assert "weather is fine" in main_text(told, "a.html", encoding="cp037")["text"]
