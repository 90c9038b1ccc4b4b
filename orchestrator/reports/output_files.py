"""The ledger's results as a file: JSONL without loss, CSV and XLSX that are safe to open in a spreadsheet, or Parquet.

Streamed row by row; written beside its target and renamed, so that a reader never sees half of it.
"""

from __future__ import annotations

import csv
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TextIO

from orchestrator.errors import InputError, LedgerError
from orchestrator.models import Json
from orchestrator.plaintext import safe

#: What makes a spreadsheet take a cell for a formula, also behind blanks and invisible characters.
_FORMULA = re.compile(r"[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n\x00]")

#: Control characters but tab and line breaks: a terminal that shows the file would obey them.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

FORMATS = ("jsonl", "csv", "parquet", "xlsx")

#: A format besides: nothing but the API's file IDs.
IDS = "ids"

#: Rows of a sheet, the header among them (Excel's limit).
MOST_SHEET_ROWS = 1_048_576


def format_of(form: str | None, path: Path | None) -> str:
    """The format to write: *form*, or what the suffix of *path* says, or JSONL.

    Raises InputError for an unknown format, or one that contradicts the suffix.
    """
    suffix = "" if path is None else path.suffix.lower().removeprefix(".")
    if form is not None and form not in FORMATS:
        raise InputError(f"--format {safe(form)}: must be one of {', '.join(FORMATS)}")
    if form is not None and suffix in FORMATS and suffix != form:
        raise InputError(f"-o {safe(path)}: its name says {suffix}, --format says {form}; leave one of them out")
    return form or (suffix if suffix in FORMATS else "jsonl")


def cell(value: Json) -> Json:
    """*value* as a CSV cell: text that a spreadsheet could run gets a ``'`` in front (to undo, drop one)."""
    if isinstance(value, str) and (_FORMULA.match(value) or value.startswith("'")):
        return "'" + value
    return "" if value is None else value


def harmless(value: Json) -> Json:
    """*value* with control characters spelled out as ``\\x1b``; tabs and line breaks stay."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], value) if isinstance(value, str) else value


def write_jsonl(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Json]]) -> int:
    """One JSON object a line, ASCII only; how many."""
    count = 0
    for row in rows:
        out.write(json.dumps(dict(zip(columns, row, strict=True)), allow_nan=False) + "\n")
        count += 1
    return count


def write_ids(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Json]]) -> int:
    """The API's file IDs, each once, one a line; how many. A document that the API has never had has none."""
    at = columns.index("file_id")
    seen: set[str] = set()
    for row in rows:
        file_id = str(row[at])
        if file_id not in seen and not file_id.startswith("sha256:"):
            seen.add(file_id)
            out.write(f"{file_id}\n")
    return len(seen)


def write_csv(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Json]]) -> int:
    """A header, then one quoted record a row; how many."""
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    writer.writerow(columns)
    count = 0
    for row in rows:
        writer.writerow([harmless(cell(value)) for value in row])
        count += 1
    return count


def write_parquet(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Json]]) -> int:
    """A Parquet file at *path*; how many rows. Raises InputError when the optional pyarrow is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'orchestrator[parquet]'") from None
    numbers = {
        "confidence": pa.float64(),
        "credits": pa.float64(),
        "chunk_id": pa.int64(),
        "generation": pa.int64(),
        "rehearsal": pa.bool_(),
    }
    schema = pa.schema([(name, numbers.get(name, pa.string())) for name in columns])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for batch in _batches(rows, 50_000):
            count += len(batch)
            arrays = [
                pa.array(column if kind.name in numbers else [_text(value) for value in column], kind.type)
                for column, kind in zip(zip(*batch, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return count


def _text(value: Json) -> str | None:
    """A list's own column may hold numbers: a column of a table is of one kind."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def write_xlsx(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Json]]) -> int:
    """One sheet at *path* whose texts are texts, never formulas; how many rows.

    Raises InputError when the optional openpyxl is not installed, or a sheet can't hold that many rows.
    """
    try:
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell
    except ImportError:
        raise InputError("XLSX needs openpyxl: pip install 'orchestrator[xlsx]'") from None
    book = Workbook(write_only=True)
    sheet = book.create_sheet("results")
    count = 0
    for count, row in enumerate(chain([columns], rows)):
        if count >= MOST_SHEET_ROWS:
            raise InputError(f"a sheet holds {MOST_SHEET_ROWS - 1:,} rows at most; use --format csv or parquet")
        cells = []
        for value in row:
            made = WriteOnlyCell(sheet, harmless(value))
            if isinstance(value, str):
                made.data_type = "s"  # a text that begins with = would be a formula
            cells.append(made)
        sheet.append(cells)
    book.save(path)
    return count


def export(
    path: Path | None,
    form: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Json]],
    *,
    mode: int = 0o600,
    bom: bool = False,
) -> int:
    """Write *rows* to *path*, or to standard output; how many. *mode*: of a file that is new; *bom*: CSV only.

    Raises LedgerError when it can't be written.
    """
    if form in ("parquet", "xlsx"):
        if path is None:
            raise InputError(f"{form} is not text: name a file with -o")
        with replacing(path, mode) as temporary:
            return (write_parquet if form == "parquet" else write_xlsx)(temporary, columns, rows)
    write = {"csv": write_csv, IDS: write_ids}.get(form, write_jsonl)
    if path is None:
        if form == "csv" and sys.stdout.isatty():  # JSONL is ASCII anyway
            rows = ([safe(value) if isinstance(value, str) else value for value in row] for row in rows)
        try:
            if bom and form == "csv":
                sys.stdout.write("\ufeff")
            return write(sys.stdout, columns, rows)
        except BrokenPipeError:  # the reader has what it wanted
            raise
        except OSError as error:
            raise LedgerError(f"standard output: {error.strerror or error}") from error
    encoding = "utf-8-sig" if bom and form == "csv" else "utf-8"
    with replacing(path, mode) as temporary, temporary.open("w", encoding=encoding, newline="") as out:
        return write(out, columns, rows)


def refuse_sources(output: Path, *sources: Path) -> None:
    """Raises InputError when *output* is one of *sources*: an export must not replace what it is made from."""
    for source in sources:
        if output.exists() and source.exists() and output.samefile(source):
            raise InputError(f"-o {output}: this would replace {source}; give another name")


@contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[Path]:
    """A file beside *path* that takes its place, whole and on disk, when the block ends well.

    Through a link its target is written. What was there keeps its mode and group; a new file has *mode*. Raises
    LedgerError when it can't be written; *path* is then as it was.
    """
    try:
        path = path.resolve()
        if path.exists() and not path.is_file():
            yield path  # a device or a pipe: there is nothing to replace
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            yield temporary
            _take_after(temporary, path, mode)
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror or error}") from error


def _take_after(temporary: Path, path: Path, mode: int) -> None:
    """Give *temporary* the mode and group of the file at *path*, or *mode* where there is none."""
    if not path.exists():
        temporary.chmod(mode)
        return
    before = path.stat()
    with suppress(PermissionError):  # of a group that is not ours
        os.chown(temporary, -1, before.st_gid)
    temporary.chmod(stat.S_IMODE(before.st_mode))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _batches(rows: Iterable[Sequence[Json]], size: int) -> Iterator[list[Sequence[Json]]]:
    batch: list[Sequence[Json]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
