"""What was submitted, as cells of text: notebooks, their HTML, pasted logs, folders and zip files.

    for source in find_submissions(["student-a", "student-b.zip"]):
        submission = read(source)          # never raises: what cannot be read is in `problems`

A submission is a stranger's file. It is parsed and never executed, imported, unpickled or unpacked to disk; size,
count, depth and ratio are bounded before anything is parsed, links and paths that lead elsewhere are refused.
"""

import io
import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import UsageError
from .markup import MAX_TAGS, html_cells, table_text

MAX_FILE = 40 << 20  # bytes of one file
MAX_TOTAL = 200 << 20  # bytes of one submission, unpacked
MAX_FILES = 400  # files that are read of one submission
MAX_ENTRIES = 20_000  # entries of one zip file or folder
MAX_RATIO = 300  # unpacked to packed, of a member above 1 MiB: text rarely passes 20
MAX_DEPTH = 2  # zip files in zip files
MAX_MARKS = 3_000_000  # commas and brackets of one JSON file, which bound the objects it becomes
MAX_CELLS = 2_000
MAX_TEXT = 4 << 20  # characters of source and output in one file; those of images are not counted

FORMS = {".ipynb": "notebook", ".html": "html", ".htm": "html", ".md": "text", ".txt": "text", ".log": "text"}
FORMS |= {".markdown": "text", ".py": "python"}
PASSED_OVER = {"__MACOSX", "node_modules", "site-packages", "venv", "__pycache__"}
ESCAPES = re.compile(r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)?|\x1b.?")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
UNPRINTABLE = re.compile("[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")


@dataclass(frozen=True)
class Cell:
    """One cell, numbered from 1 as it stands; a text is a single cell.

    `kind` is "code", "markdown" or "text"; `output` what was printed, or the whole of a text.
    `count` is the execution count, None where there is none and 0 where Colab did not keep it.
    """

    number: int
    kind: str
    source: str = ""
    output: str = ""
    count: int | None = None
    error: str = ""


@dataclass(frozen=True)
class Document:
    """One file: its path within the submission, its form ("notebook", "html", "text", "python") and its cells."""

    name: str
    form: str
    cells: tuple[Cell, ...]


@dataclass
class Submission:
    """All that could be read of one submission, and why the rest could not."""

    name: str
    documents: list[Document] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Where a submission lies: a path, and within a zip file the prefix of its entries."""

    name: str
    path: str
    inside: str = ""


class Refused(Exception):
    """Something that is not read, with the reason."""


def find_submissions(paths: list[str | Path], each: bool = False) -> list[Source]:
    """One submission a path: a file, a folder or a zip file. With `each`, one for every entry of the folders and zip
    files given: each file that can be read, each folder and each zip file in it. Raises UsageError."""
    found: list[Source] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UsageError(f"{clean_name(str(path))}: no such file or folder")
        if each and (path.is_dir() or path.suffix.lower() == ".zip"):
            found += _entries(path)
        else:
            found.append(Source(clean_name(path.name or str(path.resolve())), str(path)))
    if not found:
        raise UsageError("nothing to grade there; a submission is a notebook, HTML, Markdown, text, folder or zip file")
    return found


def _entries(path: Path) -> list[Source]:
    if path.is_dir():
        kept = [p for p in sorted(path.iterdir()) if not _passed_over(p.name) and not p.is_symlink()]
        return [Source(clean_name(p.name), str(p)) for p in kept if p.is_dir() or _readable(p.name)]
    try:
        with _open_zip(path.open("rb"), path.stat().st_size) as archive:
            tops = {name.split("/")[0] + ("/" if "/" in name else "") for name in archive.namelist()}
    except (Refused, OSError, zipfile.BadZipFile, ValueError) as error:
        raise UsageError(f"{clean_name(str(path))} cannot be read as a zip file ({clean(str(error))})") from None
    tops = {top for top in tops if not _passed_over(top.rstrip("/")) and (top.endswith("/") or _readable(top))}
    return [Source(clean_name(top.rstrip("/")), str(path), top) for top in sorted(tops)]


def _readable(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in {*FORMS, ".zip"} - {".py"}


def _passed_over(part: str) -> bool:
    return part.startswith(".") and part not in (".", "..") or part in PASSED_OVER


def read(source: Source) -> Submission:
    """The documents of a submission, in the order of their names, and why others were not read. Never raises."""
    submission, budget = Submission(source.name), _Budget()
    try:
        for name, data in _files(source, submission.problems, budget):
            try:
                document = read_document(name, data)
                budget.read(document)
                submission.documents.append(document)
            except (Refused, ValueError, RecursionError, MemoryError, LookupError, TypeError, AttributeError) as error:
                prefix = "" if clean_name(name) == source.name else f"{clean_name(name)}: "
                submission.problems.append(prefix + _reason(error))
    except (Refused, OSError, zipfile.BadZipFile, ValueError, RuntimeError, MemoryError, EOFError) as error:
        submission.problems.append(_reason(error))
    except Exception as error:  # of whatever kind a damaged archive raises: the other submissions go on
        submission.problems.append(_reason(error))
    if not submission.documents and not submission.problems:
        submission.problems.append("no notebook, HTML, Markdown or text in it")
    return submission


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply to be read"
    if isinstance(error, MemoryError):
        return "too large to be read"
    return cut(clean(str(error) or type(error).__name__), 200)


@dataclass
class _Budget:
    """What a submission may still take."""

    files: int = MAX_FILES
    bytes: int = MAX_TOTAL
    text: int = 4 * MAX_TEXT

    def take(self, size: int) -> None:
        self.files, self.bytes = self.files - 1, self.bytes - size
        if self.files < 0:
            raise Refused(f"more than {MAX_FILES} files; only the first were read")
        if self.bytes < 0:
            raise Refused(f"more than {MAX_TOTAL >> 20} MiB in all; only the first files were read")

    def read(self, document: Document) -> None:
        self.text -= _size(document.cells)
        if self.text < 0:
            raise Refused(f"more than {4 * MAX_TEXT >> 20} MiB of text in all")


def _size(cells: Iterable[Cell]) -> int:
    return sum(len(cell.source) + len(cell.output) for cell in cells)


def _files(source: Source, problems: list[str], budget: _Budget) -> Iterator[tuple[str, bytes]]:
    path = Path(source.path).resolve()  # what a person names may be a link, what lies in it may not
    if path.is_dir():
        yield from _folder_files(path, problems, budget)
    elif path.suffix.lower() == ".zip":
        with path.open("rb") as file:
            yield from _zip_files(file, path.stat().st_size, "", source.inside, problems, budget, 1)
    else:
        yield Path(source.path).name or path.name, _read_file(path, budget)


def _folder_files(root: Path, problems: list[str], budget: _Budget) -> Iterator[tuple[str, bytes]]:
    seen = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _passed_over(name))
        for name in sorted(names):
            seen += 1
            if seen > MAX_ENTRIES:
                raise Refused(f"more than {MAX_ENTRIES:,} entries; only the first were read")
            path = Path(folder, name)
            suffix, inner = path.suffix.lower(), path.relative_to(root).as_posix()
            if _passed_over(name) or suffix not in {*FORMS, ".zip"}:
                continue
            try:
                if suffix == ".zip":
                    data = _read_file(path, budget)
                    yield from _zip_files(io.BytesIO(data), len(data), inner + "/", "", problems, budget, 1)
                else:
                    yield inner, _read_file(path, budget)
            except (OSError, zipfile.BadZipFile, Refused) as error:
                problems.append(f"{clean_name(inner)}: {_reason(error)}")
                if budget.files < 0 or budget.bytes < 0:
                    return


def _read_file(path: Path, budget: _Budget) -> bytes:
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode):
        raise Refused("a link; links are not followed")
    if not stat.S_ISREG(about.st_mode):
        raise Refused("not a plain file")
    if about.st_size > MAX_FILE:
        raise Refused(f"larger than {MAX_FILE >> 20} MiB")
    budget.take(about.st_size)
    with path.open("rb") as file:
        return file.read(MAX_FILE + 1)


def _zip_files(
    file, size: int, prefix: str, inside: str, problems: list[str], budget: _Budget, depth: int
) -> Iterator[tuple[str, bytes]]:
    with _open_zip(file, size) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            name = info.filename
            suffix, parts = PurePosixPath(name).suffix.lower(), name.split("/")
            belongs = name.startswith(inside) if inside.endswith("/") else inside in ("", name)
            if info.is_dir() or not belongs or suffix not in {*FORMS, ".zip"}:
                continue
            if any(_passed_over(part) for part in parts):
                continue
            try:
                data = _read_member(archive, info, budget)
                if suffix != ".zip":
                    yield prefix + name, data
                elif depth >= MAX_DEPTH:
                    raise Refused(f"zip files in zip files, more than {MAX_DEPTH} deep")
                else:
                    inner = io.BytesIO(data)
                    yield from _zip_files(inner, len(data), prefix + name + "/", "", problems, budget, depth + 1)
            except Exception as error:  # of whatever kind damage raises: the other members go on
                problems.append(f"{clean_name(prefix + name)}: {_reason(error)}")
                if budget.files < 0 or budget.bytes < 0:
                    return


def _open_zip(file, size: int) -> zipfile.ZipFile:
    """The archive, once its own directory is known to be small: opening it reads that whole."""
    if size > MAX_TOTAL:
        raise Refused(f"larger than {MAX_TOTAL >> 20} MiB")
    tail = min(size, 66_000)
    file.seek(size - tail)
    end = file.read(tail)
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) < at + 22:
        raise Refused("not a zip file")
    if end[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
        raise Refused("a zip file of the 64-bit kind, which no submission needs")
    entries, directory = struct.unpack("<HL", end[at + 10 : at + 16])
    if entries > MAX_ENTRIES or directory > 1000 * MAX_ENTRIES:
        raise Refused(f"more than {MAX_ENTRIES:,} entries")
    file.seek(0)
    return zipfile.ZipFile(file)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget) -> bytes:
    name = info.filename
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or re.match(r"[A-Za-z]:", name):
        raise Refused("its path leads out of the archive")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise Refused("a link; links are not followed")
    if info.flag_bits & 0x1:
        raise Refused("encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused("compressed in a way that is not read here")
    if info.file_size > MAX_FILE:
        raise Refused(f"larger than {MAX_FILE >> 20} MiB when unpacked")
    if info.file_size > 1 << 20 and info.file_size > MAX_RATIO * max(1, info.compress_size):
        raise Refused(f"unpacks to more than {MAX_RATIO} times its size")
    budget.take(info.file_size)
    with archive.open(info) as member:
        data = member.read(info.file_size + 1)
    if len(data) > info.file_size:
        raise Refused("larger than it says")
    return data


def read_document(name: str, data: bytes) -> Document:
    """One file as cells. Raises Refused, ValueError or RecursionError where it is not what its name says."""
    form = FORMS.get(PurePosixPath(name).suffix.lower())
    if form is None:
        raise Refused("not a notebook, HTML, Markdown or text")
    if len(data) > MAX_FILE:
        raise Refused(f"larger than {MAX_FILE >> 20} MiB")
    text = decode(data)
    if form in ("notebook", "html") and text.count("<") > MAX_TAGS:
        raise Refused(f"HTML of more than {MAX_TAGS:,} tags")
    if form == "notebook":
        cells = _notebook_cells(text)
    elif form == "html":
        cells = [Cell(**facts) for facts in html_cells(text, MAX_CELLS)]
        cells = [_cleaned(cell) for cell in cells]
        form = "text" if cells and cells[0].kind == "text" else form
    elif form == "python":
        cells = [Cell(1, "code", clean(text))]
    else:
        cells = [Cell(1, "text", "", clean(text))]
    if _size(cells) > MAX_TEXT:
        raise Refused(f"more than {MAX_TEXT >> 20} MiB of text, images aside")
    return Document(clean_name(name), form, tuple(cells))


def decode(data: bytes) -> str:
    """UTF-8 or UTF-16 with its mark, else whatever bytes there are."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _notebook_cells(text: str) -> list[Cell]:
    if sum(map(text.count, "[{,")) > MAX_MARKS:
        raise Refused("JSON of too many parts")
    try:
        notebook = json.loads(text)
    except ValueError as error:
        raise Refused(f"not JSON ({error})") from None
    if not isinstance(notebook, dict):
        raise Refused("not a notebook")
    cells = notebook.get("cells")
    if cells is None:  # nbformat 3 has worksheets
        sheets = [sheet for sheet in _list(notebook.get("worksheets")) if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets for cell in _list(sheet.get("cells"))] if sheets else None
    if not isinstance(cells, list):
        raise Refused("not a notebook: it has no cells")
    return [_notebook_cell(number, cell) for number, cell in enumerate(cells[:MAX_CELLS], 1) if isinstance(cell, dict)]


def _notebook_cell(number: int, cell: dict) -> Cell:
    source = _text(cell.get("source", cell.get("input")))
    if cell.get("cell_type") != "code":
        return Cell(number, "markdown", clean(source))
    outputs = [output for output in _list(cell.get("outputs")) if isinstance(output, dict)]
    errors = [output for output in outputs if output.get("output_type") in ("error", "pyerr")]
    said = "; ".join(f"{_text(e.get('ename'))}: {_text(e.get('evalue'))}".strip(": ") or "an error" for e in errors)
    count = cell.get("execution_count", cell.get("prompt_number"))
    count = count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 10**9 else None
    return Cell(number, "code", clean(source), clean(_joined(outputs)), count, cut(clean(said), 300))


def _joined(outputs: list[dict]) -> str:
    """What the outputs show as text, each on lines of its own; a stream that was cut in pieces is whole again."""
    parts: list[str] = []
    before = None
    for output in outputs:
        stream = output.get("name", output.get("stream")) if output.get("output_type") == "stream" else None
        if parts and not parts[-1].endswith("\n") and (stream is None or stream != before):
            parts.append("\n")
        parts.append(_shown(output))
        before = stream
    return "".join(parts)


def _shown(output: dict) -> str:
    kind = output.get("output_type")
    if kind == "stream":
        return _text(output.get("text"))
    if kind in ("error", "pyerr"):
        return ""
    data = output.get("data") if isinstance(output.get("data"), dict) else output
    rich = _text(data.get("text/html", data.get("html")))
    if "<td" in rich or "<pre" in rich:
        return table_text(rich)
    return _text(data.get("text/plain", data.get("text"))) or _text(data.get("text/markdown"))


def _list(value) -> list:
    return value if isinstance(value, list) else []


def _text(value) -> str:
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _cleaned(cell: Cell) -> Cell:
    return Cell(cell.number, cell.kind, *map(clean, (cell.source, cell.output)), cell.count, clean(cell.error))


def clean(text: str) -> str:
    """Without terminal escapes, control characters and marks that turn the direction of writing; safe to encode.

    Carriage returns and backspaces stay, with which progress bars write over themselves.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = ESCAPES.sub("", text) if "\x1b" in text else text
    return UNPRINTABLE.sub("", text.replace("\r\n", "\n"))


def cut(text: str, width: int = 160) -> str:
    """On one line of at most `width` characters, none of which moves the cursor."""
    text = " ".join(CONTROL.sub(" ", text).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def clean_name(name: str) -> str:
    """The name of a file as it can be shown."""
    return cut(clean(name), 200)
