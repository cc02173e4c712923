"""Text files as people have them: quotes, delimiters, line ends, encodings, pipes; each line is accounted for."""

import gzip
import os
import threading
from pathlib import Path

import pytest

from stream.cleaning import CleaningOptions
from stream.errors import SourceError
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions

AT = "2023-01-01T10:00:00Z"
STRAY_AT_THE_END = [f"u{n},i{n},{AT},{chr(34) + '7 inch' if n in {3, 11} else f'plain {n}'}" for n in range(1, 13)]
STRAY_IN_THE_MIDDLE = [f"u{n},i{n},{chr(34) + '7 inch' if n in {3, 11} else f'plain {n}'},{AT}" for n in range(1, 13)]


def written(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    file = tmp_path / "events.csv"
    file.write_text(text, encoding, newline="")
    return file


def opened(tmp_path: Path, text: str, encoding: str = "utf-8", options: TableOptions | None = None) -> Source:
    return open_table(written(tmp_path, text, encoding), options)


def users(source: Source) -> list[str]:
    return sorted(source.events["user_id"])


def noted(source: Source, part: str) -> bool:
    return any(part in note for note in source.report.notes)


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("user_id,item_id,at,note", STRAY_AT_THE_END),
        ("user_id,item_id,note,at", STRAY_IN_THE_MIDDLE),
        # the second quote closes where a value ends, so that eight rows look like one
        ("user_id,item_id,at,note", [*STRAY_AT_THE_END[:10], f'u11,i11,{AT},10 inch"', STRAY_AT_THE_END[11]]),
        # a quote that is never closed
        ("user_id,item_id,at,note", [*STRAY_AT_THE_END[:10], f"u11,i11,{AT},x", STRAY_AT_THE_END[11]]),
    ],
)
def test_stray_quotes_swallow_no_row(tmp_path: Path, header: str, rows: list[str]) -> None:
    source = opened(tmp_path, "\n".join([header, *rows]) + "\n")
    assert users(source) == sorted(f"u{n}" for n in range(1, 13))
    assert noted(source, "a quote that encloses no value (line 4")


def test_strict_stops_at_a_stray_quote(tmp_path: Path) -> None:
    text = "\n".join(["user_id,item_id,at,note", *STRAY_AT_THE_END])
    strict = CleaningOptions(strict=True)
    with pytest.raises(SourceError, match=r"events.csv line 4: a quote that encloses no value .*--no-quotes"):
        opened(tmp_path, text, options=TableOptions(cleaning=strict))
    assert len(opened(tmp_path, text, options=TableOptions(cleaning=strict, quotes=False))) == 12


def test_values_that_span_lines_stay_whole_and_move_line_numbers(tmp_path: Path) -> None:
    text = f'user_id,item_id,at,note\nu1,i1,{AT},"a fine,\nbig ""pan""\n\n"\nu2,i2,soon,x\nu3,i3,{AT},"7"" wide"\n'
    source = opened(tmp_path, text)
    assert users(source) == ["u1", "u3"]
    assert [(row.line, row.fault) for row in source.report.examples] == [(6, "at not a time")]
    (count,) = source.report.of("events").files
    assert (count.lines, count.header, count.continued, count.rows) == (7, 1, 3, 3)
    assert noted(source, "3 lines go on with a quoted value of the line before (the first value is in line 2")


def test_a_doubtful_row_between_many_is_no_reason_to_lose_others(tmp_path: Path) -> None:
    rows = [f'u{n},i{n},{AT},"note {n}, with ""quotes"""' for n in range(50)]
    rows[20] = f'u20,i20,{AT},12" and "13" wide'
    source = opened(tmp_path, "\n".join(["user_id,item_id,at,note", *rows]))
    assert len(source) == 50


@pytest.mark.parametrize(
    "text",
    [
        f'user_id,item_id,at,"price, EUR"\nu1,i1,{AT},3.5\nu2,i2,{AT},4.5\n',
        f'"user_id";"item_id";"at";"a; b\nand c"\nu1;i1;{AT};3.5\nu2;i2;{AT};4.5\n',
        f"sep=;\nuser_id;item_id;at\nu1;i1;{AT}\nu2;i2;{AT}\n",
        f"SEP=,\r\nuser_id,item_id,at\r\nu1,i1,{AT}\r\nu2,i2,{AT}\r\n",
        f"user_id,item_id,at\ru1,i1,{AT}\ru2,i2,{AT}\r",
        f"\n\nuser_id,item_id,at\n\nu1,i1,{AT}\n,,\nu2,i2,{AT}",
        f'user_id,item_id,at,note\nu1,i1,{AT},"a \\"fine\\", b"\nu2,i2,{AT},"c"\n',
        f"user_id,item_id,at\nu1,i1,{AT},\nu2,i2,{AT},\n",
        f'user_id,item_id,at,"size\nu1,i1,{AT},x\nu2,i2,{AT},y"\n',
        f"user_id|item_id|at\nu1|i1|{AT}\nu2|i2|{AT}\n",
        f"user_id::item_id::at\nu1::i1::{AT}\nu2::i2::{AT}\n",
    ],
)
def test_forms_of_text_files(tmp_path: Path, text: str) -> None:
    source = opened(tmp_path, text)
    assert users(source) == ["u1", "u2"]
    (count,) = source.report.of("events").files
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    assert count.lines == lines.count("\n") + (not lines.endswith("\n"))
    assert source.report.read == source.report.kept == 2


def test_options_for_what_cannot_be_detected(tmp_path: Path) -> None:
    plain = f'user_id~item_id~at~note\nu1~i1~{AT}~"open\nu2~i2~{AT}~x\n'
    source = opened(tmp_path, plain, options=TableOptions(delimiter="~", quotes=False))
    assert users(source) == ["u1", "u2"]
    tabs = opened(tmp_path, f"user_id\titem_id\tat\nu1\ti1\t{AT}\n", options=TableOptions(delimiter="tab"))
    assert users(tabs) == ["u1"]
    with pytest.raises(SourceError, match="name another --delimiter"):
        opened(tmp_path, f"user_id~item_id~at\nu1~i1~{AT}\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    source = opened(tmp_path, f"user_id,item_id,at,category\nu1,i1,{AT},Küchengeräte\n", encoding)
    assert source.events["category"].to_list() == ["Küchengeräte"]


def test_another_encoding_is_asked_for_by_an_option_that_exists(tmp_path: Path) -> None:
    text = "user_id,item_id,at,category\n" + f"u1,i1,{AT},Küchengeräte\n" * 3
    with pytest.raises(SourceError, match=r"line 2: category: bytes of another encoding.*3 of 3 rows.*--encoding"):
        opened(tmp_path, text, "cp1252")
    source = opened(tmp_path, text, "cp1252", TableOptions(encoding="cp1252"))
    assert source.events["category"][0] == "Küchengeräte"
    with pytest.raises(SourceError, match="--encoding utf-16-le"):
        opened(tmp_path, text, "utf-16-le")
    with pytest.raises(SourceError, match="--encoding klingon: there is no such text encoding"):
        opened(tmp_path, text, options=TableOptions(encoding="klingon"))


def test_single_rows_in_another_encoding_are_rejected_by_line(tmp_path: Path) -> None:
    good = "".join(f"u{n},i{n},{AT},x\n" for n in range(200))
    file = tmp_path / "events.csv"
    file.write_bytes(f"user_id,item_id,at,category\n{good}".encode() + b"bad,i,2023-01-01T10:00:00Z,K\xfcche\n")
    report = open_table(file).report
    assert (report.kept, [(row.line, row.fault) for row in report.examples]) == (
        200,
        [(202, "bytes of another encoding")],
    )


def piped(tmp_path: Path, content: bytes) -> Path:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(content,), daemon=True).start()
    return pipe


@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_is_read_whole(tmp_path: Path, *, packed: bool) -> None:
    text = ("user_id,item_id,at\n" + "".join(f"u{n},i{n},{AT}\n" for n in range(3_000))).encode()
    assert len(open_table(piped(tmp_path, gzip.compress(text) if packed else text))) == 3_000


def test_standard_input_is_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with written(tmp_path, f"user_id,item_id,at\nu1,i1,{AT}\n").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert users(open_table(Path("-"))) == ["u1"]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"PK\x03\x04", "a zip archive or a workbook"),
        (b"BZh91AY", r"bzip2 -dc FILE, with - as"),
        (b'{"user_id": "u1"}\n', r"is JSON, not a table; .*POST /v1/events"),
    ],
)
def test_other_files_name_the_cure(tmp_path: Path, head: bytes, message: str) -> None:
    file = tmp_path / "events.csv"
    file.write_bytes(head)
    with pytest.raises(SourceError, match=message):
        open_table(file)
