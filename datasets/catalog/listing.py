"""A user's table or list as numbered lines: encodings, separators and quotes as spreadsheets and editors write them.

Every line that is not blank is given back or refused; a line is never dropped, and a value never spans lines.
"""

from __future__ import annotations

import codecs
import difflib
import re
import shlex
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from crossview.errors import DataWarning, UserError

SEPARATORS = (",", ";", "\t")
"""What spreadsheets write between values, depending on the language that they are set to."""
LONGEST = 100_000
"""Characters in a line; a longer one has lost its line ends, or is not text."""
_MARKS = (  # UTF-32's first bytes begin as UTF-16's do
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_REMEDY = "save the file as UTF-8 (in Excel: Save As, 'CSV UTF-8')"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Row:
    """One line of a table, by the names of its columns."""

    number: int
    """Counted from 1, as editors do."""
    values: dict[str, str]
    """Without the spaces around them."""


class Problems:
    """What is wrong in a user's files, collected so that all of it is shown at once."""

    SHOWN = 10

    def __init__(self) -> None:
        self.found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, problem: str | UserError) -> None:
        """Note one problem: file, line, rule and fix."""
        self.found.append(str(problem))

    def refuse(self) -> None:
        """Raise UserError with the first of them and the number of the rest; nothing if there are none."""
        if self.found:
            raise UserError("\n".join(first_of(self.found, self.SHOWN)))


def first_of(lines: Sequence[str], shown: int) -> list[str]:
    """The first lines, and a last one that counts the others."""
    more = len(lines) - shown
    return [*lines[:shown], *([f"... and {more} more"] if more > 0 else [])]


def text_lines(file: Path) -> list[tuple[int, str]]:
    """Numbered lines of a text file that are not blank; they may end in LF, CRLF or CR.

    UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one. Raises UserError with file and line for any
    other encoding, which cannot be known for certain, for NUL characters and for lines longer than LONGEST; and where
    the file is missing.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{file}: the file is missing; get it again, or pass where it is") from error
    lines = re.split("\r\n|\n|\r", _decoded(file, data))
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UserError(f"{file}, line {number}: it holds a NUL character, which no text has; {_REMEDY}")
        if len(line) > LONGEST:
            raise UserError(
                f"{file}, line {number}: it has {len(line)} characters, and at most {LONGEST} are read; "
                "write one entry per line"
            )
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _decoded(file: Path, data: bytes) -> str:
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    data = data[len(mark) :]
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, errors="replace")
        number = len(re.split("\r\n|\n|\r", before))
        raise UserError(
            f"{file}, line {number}: the bytes {data[error.start : error.end].hex(' ')} are not {encoding.upper()}; "
            f"{_REMEDY}"
        ) from error


def cells(file: Path, number: int, line: str, separator: str) -> list[str]:
    """The values of one line without the spaces around them; raises UserError for quotes that are not in pairs."""
    if '"' not in line:
        return [value.strip() for value in line.split(separator)]
    value = rf' *"(?:[^"]|"")*" *|[^"{separator}]*'
    line = line.strip(" ")
    if not re.fullmatch(f"(?:{value})(?:{separator}(?:{value}))*", line):
        raise UserError(
            f'{file}, line {number}: a quote (") is not closed in this line, or stands inside a value, in '
            f'{_short(line)}; remove it, or write a value that holds quotes or {separator!r} as "a ""quoted"" one": '
            "none may span several lines"
        )
    values = [found.strip() for found in re.findall(f"(?:^|{separator})({value})", line)]
    return [found[1:-1].replace('""', '"').strip() if found.startswith('"') else found for found in values]


def table(
    file: Path,
    required: Sequence[str],
    optional: Sequence[str],
    problems: Problems,
    *,
    ignored: Sequence[str] | None = None,
) -> Iterator[Row]:
    """Rows of a table whose first line names its columns, in any order and case.

    Columns of the names `ignored` are passed over, and others refused. None is for tables that were published, whose
    further columns are passed over with a warning, unless they look like a missing one that is misspelt.

    Values are separated by comma, semicolon or tab, whichever the first line uses. Rows that do not fit the header are
    added to `problems` in their turn; raises UserError for a file or a header that cannot be read. Lines of separators
    alone, which spreadsheets write for emptied rows, count as blank.
    """
    lines = text_lines(file)
    if not lines:
        raise UserError(f"{file}: it is empty; write the header {','.join(required)} and a line per video")
    known = (*required, *optional)
    first, header = lines[0]
    separator = max(SEPARATORS, key=lambda s: len({name.strip(' "').lower() for name in header.split(s)} & {*known}))
    names = [name.lower() for name in cells(file, first, header, separator)]
    while names and not names[-1]:  # columns that a spreadsheet once had
        names.pop()
    _check_header(f"{file}, line {first}", names, required, known, ignored)
    passed_over = {name.lower() for name in ignored or ()}
    for number, line in lines[1:]:
        try:
            values = cells(file, number, line, separator)
        except UserError as error:
            problems.add(error)
            continue
        while len(values) > len(names) and not values[-1]:
            values.pop()
        if not any(values):
            continue
        if len(values) != len(names):
            problems.add(
                f"{file}, line {number}: {_short(line)} does not fit the header, which has {len(names)} columns, not "
                f"{len(values)}; give one value per column, and put a value that holds {separator!r} in quotes"
            )
            continue
        yield Row(number, {k: value for k, value in zip(names, values, strict=True) if k not in passed_over})


def _check_header(
    place: str, names: list[str], required: Sequence[str], known: Sequence[str], ignored: Sequence[str] | None
) -> None:
    if not {*names} & {*known}:
        raise UserError(
            f"{place}: it names none of the columns; the first line must be the header {','.join(required)}"
        )
    problems = Problems()
    passed_over = {name.lower() for name in ignored or ()}
    for name in sorted(passed_over & {*required}):
        problems.add(f"{place}: column {name!r} is needed; take it out of --ignore-columns")
    for name in sorted(passed_over - {*names}):
        problems.add(f"{place}: there is no column {name!r}, which --ignore-columns names; take it out of that")
    further = []
    for name in dict.fromkeys(names):
        if name in passed_over:
            continue
        if name in known and names.count(name) > 1:
            problems.add(f"{place}: column {name!r} is there {names.count(name)} times; keep one of them")
        if name not in known:
            near = difflib.get_close_matches(name, [k for k in known if ignored is not None or k not in names], 1)
            if ignored is None and not near:
                further.append(name)
                continue
            meant = f"did you mean {near[0]!r}? " if near else ""
            over = "" if ignored is None else f", or pass over it with --ignore-columns {shlex.quote(name)}"
            problems.add(f"{place}: column {name!r} is unknown; {meant}choose from {', '.join(known)}{over}")
    for name in required:
        if name not in names:
            problems.add(f"{place}: column {name!r} is missing; needed: {', '.join(required)}")
    problems.refuse()
    if further:
        text = f"{place}: columns that are not read: {', '.join(map(_short, further))}"
        warnings.warn(text, DataWarning, stacklevel=2)


def relative_path(root: Path, text: str, *, folders: Callable[[Path], bool] = lambda _: False) -> Path:
    """The file in `root` that a table names; raises UserError, without file and line, if it is outside or missing.

    A symbolic link counts as what it stands for, wherever that is. `folders` says which paths that are no file are
    taken too.
    """
    if leads_out(text):
        raise UserError(
            f"{_short(text)} leads out of {root}; write paths relative to it and without '..', and put a link there "
            "for files that are elsewhere"
        )
    found = root / text
    if not exists(found) and not folders(found):
        slashes = "; write '/' between folders, not '\\'" if "\\" in text else ""
        raise UserError(f"{_short(text)[1:-1]} is missing; paths are relative to {root}{slashes}")
    return found


def leads_out(path: str) -> bool:
    """Whether a path may be outside of the folder that it is relative to."""
    return PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts


def exists(file: Path) -> bool:
    """Whether it is a file; a name that no file system takes is none."""
    try:
        return file.is_file()
    except OSError:
        return False


def seconds(text: str) -> float:
    """A number with a decimal point; raises UserError, without file and line, for anything else."""
    value = float(text) if _NUMBER.fullmatch(text) else float("inf")
    if abs(value) == float("inf"):
        point = text.replace(",", ".", 1)
        example = point if _NUMBER.fullmatch(point) and point != text else "1.25"
        raise UserError(f"{_short(text)} is not a number; give seconds with a decimal point, such as {example}")
    return value


def whole_number(text: str, least: int = 0) -> int:
    """A number from `least` on; raises UserError, without file and line, for anything else."""
    if not re.fullmatch("[0-9]{1,15}", text) or int(text) < least:
        raise UserError(f"{_short(text)} is not a whole number from {least} on; give one such as 12")
    return int(text)


def one_of(value: str, choices: Collection[str]) -> str:
    """The choice that is meant, in whatever case; raises UserError, without file and line, for another."""
    if value.lower() not in choices:
        raise UserError(f"{value!r} is unknown; write {' or '.join(choices)}")
    return value.lower()


def _short(text: str, most: int = 80) -> str:
    shown = text if len(text) <= most else f"{text[:most]}..."
    return f"'{shown}'" if shown.isprintable() else repr(shown)
