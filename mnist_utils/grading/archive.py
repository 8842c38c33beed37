"""What was submitted, as documents: notebooks, HTML, logs and texts in files, folders and zip
files.

    for source in find_submissions(["student-a", "student-b.zip"]):
        submission = read(source)          # what cannot be read is in `problems`

A submission is a stranger's. It is parsed and never executed, imported, unpickled or unpacked to
disk; size, count, depth and ratio are bounded, links and paths that lead elsewhere are refused.
"""

import io
import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from ..errors import UsageError
from .lines import TooLong, check_time, clean_name
from .notebook import FORMS, Document, Refused, read_document

MAX_FILE = 40 << 20  # bytes of one file
MAX_ENTRIES = 20_000  # entries of one zip file or folder
MAX_RATIO = 300  # unpacked to packed, of a member above 1 MiB: text rarely passes 20
MAX_DEPTH = 2  # zip files in zip files
MAX_TEXT = 16 << 20  # characters of all documents
PASSED_OVER = {"__MACOSX", "node_modules", "site-packages", "venv", "__pycache__"}


class Source(NamedTuple):
    """Where a submission lies: a path, and within a zip file the prefix of its entries."""

    name: str
    path: str
    inside: str = ""


def find_submissions(paths: list[str | Path], each: bool = False) -> list[Source]:
    """One submission a path: a file, a folder or a zip file. With `each`, one for every entry of
    the folders and zip files given: each file that can be read, each folder and each zip file in
    it. Raises UsageError."""
    found: list[Source] = []
    for path in (Path(os.path.abspath(path)) for path in paths):
        if not path.exists():
            raise UsageError(f"{clean_name(str(path))}: no such file or folder")
        is_zip = path.suffix.lower() == ".zip"
        if not each or not (path.is_dir() or is_zip):
            found.append(Source(clean_name(path.name), str(path)))
            continue
        try:
            if is_zip:
                with path.open("rb") as file, _open_zip(file) as archive:
                    names = archive.namelist()
                tops = {name.split("/")[0] + "/" * ("/" in name) for name in names}
            else:
                tops = {p.name + "/" * p.is_dir() for p in path.iterdir() if not p.is_symlink()}
        except Exception as error:  # of whatever kind a damaged archive raises
            said = f"{clean_name(str(path))} cannot be read ({reason(error)})"
            raise UsageError(said) from None
        for top in sorted(tops):
            suffix = PurePosixPath(top).suffix.lower()
            is_read = top.endswith("/") or (suffix in (*FORMS, ".zip") and suffix != ".py")
            if is_read and not _passed_over(top.rstrip("/")):
                place = (str(path), top) if is_zip else (str(path / top),)
                found.append(Source(clean_name(top.rstrip("/")), *place))
    if not found:
        raise UsageError(
            "nothing to grade there; a submission is a notebook, HTML, Markdown, text, folder, zip"
        )
    return found


def _passed_over(part: str) -> bool:
    return part in PASSED_OVER or (part.startswith(".") and part not in (".", ".."))


def reason(error: BaseException) -> str:
    """An error in a few words, safe to show."""
    if isinstance(error, RecursionError):
        return "nested too deeply to be read"
    return clean_name(str(error) or type(error).__name__)


class _Entry(NamedTuple):
    """A file of a folder or zip file: sizes in bytes, why it is refused, how it is opened."""

    name: str
    size: int
    packed: int
    refused: str
    open: Callable[[], BinaryIO]


@dataclass
class Submission:
    """All that could be read of one submission, and why the rest could not.

    `only` is a pattern of what is read, `text` how many characters it may still take.
    """

    name: str
    documents: list[Document] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    only: str = ""
    text: int = MAX_TEXT

    def add(self, entries: Iterator[_Entry], prefix: str = "", depth: int = 0) -> None:
        """Read the entries that are wanted, also those of zip files among them. Of a damaged or
        refused one `problems` tells, the others are read all the same."""
        for seen, entry in enumerate(entries):
            check_time()
            if seen >= MAX_ENTRIES:
                raise Refused(f"more than {MAX_ENTRIES:,} entries; only the first were read")
            name = prefix + entry.name
            if self.text < 0 or not self._is_wanted(name):
                continue
            try:
                self._read(name, entry, depth)
            except TooLong:
                raise
            except Exception as error:  # of whatever kind damage raises
                alone = clean_name(name) == self.name
                self.problems.append((not alone) * f"{clean_name(name)}: " + reason(error))

    def _is_wanted(self, name: str) -> bool:
        """Whether a file has a form that is read, and `only` names it or it may hold models."""
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        if suffix not in {*FORMS, ".zip"} or any(map(_passed_over, path.parts)):
            return not self.only and name == self.name  # what a person names is looked at
        if not self.only or suffix in (".py", ".zip"):
            return True
        return fnmatch(name, self.only) or fnmatch(path.name, self.only)

    def _read(self, name: str, entry: _Entry, depth: int) -> None:
        if entry.refused:
            raise Refused(entry.refused)
        if entry.size > MAX_FILE:
            raise Refused(f"larger than {MAX_FILE >> 20} MiB")
        if entry.size > 1 << 20 and entry.size > MAX_RATIO * max(1, entry.packed):
            raise Refused(f"unpacks to more than {MAX_RATIO} times its size")
        with entry.open() as file:
            data = file.read(entry.size + 1)  # never more, whatever it unpacks to
        if len(data) > entry.size:
            raise Refused("larger than it says")
        if not name.lower().endswith(".zip"):
            document = read_document(name, data)
            self.text -= sum(len(cell.source) + len(cell.output) for cell in document.cells)
            if self.text < 0:
                raise Refused(f"more than {MAX_TEXT >> 20} MiB of text in all")
            self.documents.append(document)
        elif depth >= MAX_DEPTH:
            raise Refused(f"zip files in zip files, more than {MAX_DEPTH} deep")
        else:
            with _open_zip(io.BytesIO(data)) as archive:
                self.add(_in_zip(archive), f"{name}/", depth + 1)


def read(source: Source, only: str = "") -> Submission:
    """The documents of a submission, notebooks before texts. `only` is a pattern as `session4/*`
    of the paths or names that are read. Raises TooLong alone: other errors are in `problems`."""
    submission = Submission(source.name, only=only)
    path = Path(source.path).resolve()  # what a person names may be a link, what lies in it not
    try:
        if path.is_dir():
            submission.add(_in_folder(path))
        elif path.suffix.lower() == ".zip":
            with path.open("rb") as file, _open_zip(file) as archive:
                submission.add(_in_zip(archive, source.inside), "", 1)
        else:
            submission.add(iter([_on_disk(path, os.path.basename(source.path))]))
    except TooLong:
        raise
    except Exception as error:  # of whatever kind a damaged archive raises
        submission.problems.append(reason(error))
    if not submission.documents and not submission.problems:
        said = only and f"no file in it matches {clean_name(only)!r}"
        submission.problems.append(said or "no notebook, HTML, Markdown or text in it")
    order = ("notebook", "html", "text", "python")
    submission.documents.sort(key=lambda document: order.index(document.form))
    return submission


def _in_folder(root: Path) -> Iterator[_Entry]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _passed_over(name))
        for path in (Path(folder, name) for name in sorted(names)):
            yield _on_disk(path, path.relative_to(root).as_posix())


def _on_disk(path: Path, name: str) -> _Entry:
    about = path.lstat()
    refused = "" if stat.S_ISREG(about.st_mode) else "not a plain file"
    if stat.S_ISLNK(about.st_mode):
        refused = "a link; links are not followed"
    return _Entry(name, about.st_size, about.st_size, refused, partial(path.open, "rb"))


def _in_zip(archive: zipfile.ZipFile, inside: str = "") -> Iterator[_Entry]:
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        name = info.filename
        parts = re.split(r"[/\\]", name)
        if info.is_dir() or not (name == inside or name.startswith(inside) and inside[-1:] in "/"):
            continue
        refused = ""
        if not parts[0] or ".." in parts or ":" in parts[0]:
            refused = "its path leads out of the archive"
        elif stat.S_ISLNK(info.external_attr >> 16):
            refused = "a link; links are not followed"
        elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            refused = "compressed in a way that is not read here"
        yield _Entry(name, info.file_size, info.compress_size, refused, partial(archive.open, info))


def _open_zip(file) -> zipfile.ZipFile:
    """The archive, once its own directory is known to be small: opening it reads that whole."""
    tail = min(file.seek(0, io.SEEK_END), 66_000)
    file.seek(-tail, io.SEEK_END)
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
