"""The repository's owner and name, which `pyproject.toml` holds and links repeat; one command changes them all.

    python -m mnist_utils repository ada/mnist        # in a clone, after a fork or a rename

The badges, the notebooks' bootstrap cells and what was executed or rendered from them name the repository too. Git is
not asked and nothing is pushed: look at `git diff`, then commit.
"""

import re
import tomllib
from pathlib import Path

from ..errors import UsageError
from ..records import atomic_write

PROJECT = "pyproject.toml"
NAMING = ("README.md", "notebooks/*.ipynb", "reports/**/*.md", "reports/**/*.ipynb", "reports/**/*.html")
FORM = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?/[\w.-]{1,100}"  # what GitHub allows


def current(root: Path = Path()) -> str:
    """`owner/name` as the project in `root` has it. Raises UsageError where there is no such project."""
    try:
        url = tomllib.loads((root / PROJECT).read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    except (OSError, ValueError, KeyError):
        raise UsageError(f"no {PROJECT} with a Repository in this folder; run this in a clone") from None
    return url.removeprefix("https://github.com/")


def rename(new: str, root: Path = Path()) -> list[Path]:
    """Put `new`, as owner/name, in the place of the present one under `root`; the files changed.

    Each file is replaced whole, `pyproject.toml` last: after an interruption the same call goes on. Raises UsageError.
    """
    if not re.fullmatch(FORM, new, re.ASCII) or new.endswith(("/.", "/..", ".git")):
        raise UsageError(f"the repository must be given as owner/name, got {new!r}")
    link = re.compile(rf"(github\.com/|google\.com/github/){re.escape(current(root))}(?!\.?[\w-])")
    return [path for path in [*_files(root), root / PROJECT] if _replace(path, link, rf"\g<1>{new}")]


def _files(root: Path) -> list[Path]:
    return sorted({path for pattern in NAMING for path in root.glob(pattern)})


def _replace(path: Path, link: re.Pattern, new: str) -> bool:
    before = path.read_bytes()
    after = link.sub(new, before.decode()).encode()
    if after != before:
        with atomic_write(path) as part:
            part.write_bytes(after)
    return after != before
