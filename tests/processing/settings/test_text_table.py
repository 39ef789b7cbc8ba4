"""Tables as people and spreadsheets write them: what is written is what is read, or one line says why not."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from scvae_data.errors import ConfigError
from scvae_data.processing.settings.text_table import read_text_table

WORDS = ["None", "NA", "nan", "NULL", "1.10", "1E2", "007", "TRUE", "2024-01-02", "1,5", "3 - 4", "Müller", "#N/A"]


def write(folder: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path = folder / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def read(folder: Path, content: str | bytes, encoding: str = "utf-8") -> tuple[list[str], list[list[str]]]:
    table = read_text_table(write(folder, content, encoding), ["path"])
    return table.columns, table.rows


@pytest.mark.parametrize("mark", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
def test_text_stays_as_it_is_written(tmp_path: Path, mark: str, end: str, encoding: str) -> None:
    lines = [f"path{mark}word", *(f'{number}.h5ad{mark}"{word}"' for number, word in enumerate(WORDS))]
    columns, rows = read(tmp_path, end.join(lines) + end, encoding)
    assert columns == ["path", "word"]
    assert rows == [[f"{number}.h5ad", word] for number, word in enumerate(WORDS)]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        pytest.param("path , donor\n a.h5ad ,  D 0 \n", [["a.h5ad", "D 0"]], id="blanks"),
        pytest.param("path, donor\n\u00a0a.h5ad,\tD0\n", [["a.h5ad", "D0"]], id="blanks of other kinds"),
        pytest.param('path,donor\na.h5ad,"x, y"\n', [["a.h5ad", "x, y"]], id="quoted separator"),
        pytest.param('path,donor\na.h5ad, "x, y"\n', [["a.h5ad", "x, y"]], id="blank before a quote"),
        pytest.param('"path" , "donor"\n"a.h5ad" , "x, y" \n', [["a.h5ad", "x, y"]], id="blanks around quotes"),
        pytest.param('path,donor\na.h5ad,"say ""x"""\n', [["a.h5ad", 'say "x"']], id="quoted quote"),
        pytest.param('path,donor\na.h5ad,5" probe\n', [["a.h5ad", '5" probe']], id="inches"),
        pytest.param('path,donor\na.h5ad,"x\ny"\n', [["a.h5ad", "x\ny"]], id="quoted line end"),
        pytest.param("path,donor\na.h5ad,\n", [["a.h5ad", ""]], id="empty"),
        pytest.param("path,donor,,\na.h5ad,x,,\n,,,\n\n", [["a.h5ad", "x"]], id="what a spreadsheet leaves"),
        pytest.param("\npath,donor\n\na.h5ad,x", [["a.h5ad", "x"]], id="blank lines, no last line end"),
        pytest.param("sep=;\npath;donor\na.h5ad;1,5\n", [["a.h5ad", "1,5"]], id="Excel's first line"),
        pytest.param("path;donor, age\na.h5ad;x, 3\n", [["a.h5ad", "x, 3"]], id="comma inside"),
        pytest.param('path,"donor;age"\na.h5ad,x;3\n', [["a.h5ad", "x;3"]], id="semicolon inside"),
        pytest.param("path\na.h5ad\nb;c.h5ad\n", [["a.h5ad"], ["b;c.h5ad"]], id="one column"),
    ],
)
def test_how_people_write_tables(tmp_path: Path, text: str, rows: list[list[str]]) -> None:
    assert read(tmp_path, text)[1] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("", "is empty; it needs a header line with path", id="empty"),
        pytest.param("sep=;\n", "is empty; it needs a header line with path", id="nothing but a separator"),
        pytest.param("path|donor\na|b\n", r"no column 'path' among path\|donor; columns are separated by", id="pipe"),
        pytest.param("file,donor\na,b\n", "no column 'path' among file, donor; columns are", id="no path"),
        pytest.param("path,donor\na,b,c\n", "line 2 has 3 fields and the header 2; quote fields", id="too many"),
        pytest.param("path,donor\n\na\n", "line 3 has 1 fields and the header 2; quote fields", id="too few"),
        pytest.param("path,donor,donor\na,b,c\n", "2 columns are called 'donor'; rename all but one", id="two columns"),
        pytest.param(",path\n0,a\n", "column 1 has no name in the header line; name it or remove it", id="no name"),
        pytest.param('path,donor\na,"b\n', "a quote is not closed", id="open quote"),
        pytest.param('path,donor\na,"b" c\n', "a quote is not closed, or stands inside a field", id="text after quote"),
        pytest.param(b"PK\x03\x04rest", "is a workbook or an archive, not text; save the sheet", id="xlsx"),
        pytest.param(b"path\n\x01\x02\n", "is not text; save it as CSV UTF-8", id="binary"),
        pytest.param(b"path\n\x81\n", r"not text in an encoding that is known \(byte 5", id="no encoding"),
        pytest.param("path\nü".encode() + b"\xfc\n", "is UTF-8 in part and something else in part", id="two encodings"),
        pytest.param(b"\xff\xfep\0a\0t\0h\0\n", "not text in an encoding that is known", id="cut UTF-16"),
        pytest.param("x" * 300_000, r"no column 'path' among x{60}…; columns are", id="one long line"),
        pytest.param("[" + "1," * 99_999, r"among \[1, 1, .* and \d+,\d+ more; columns are", id="JSON"),
        pytest.param(b"\x1f\x8b\x00", "cannot be read", id="damaged gzip"),
    ],
)
def test_what_cannot_be_decided_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path / "t.csv"))
    assert "\n" not in str(caught.value)


def test_a_guess_of_the_encoding_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(tmp_path, "path,donor\na,Müller\n", "latin-1")
    (line,) = caplog.messages
    assert re.search(r"t\.csv is not UTF-8; read as Latin-1 \(cp1252\), e\.g\. Müller; save it as UTF-8", line)


def test_packed_tables(tmp_path: Path) -> None:
    assert read(tmp_path, gzip.compress(b"path,x\na,1\n")) == (["path", "x"], [["a", "1"]])
