"""The repository's owner and name, which `pyproject.toml` holds and links repeat.

    python -m mnist_utils repository ada/mnist        # in a clone, after a fork or a rename

Git is not asked and nothing is pushed: look at `git diff`, then commit.
"""

import re
import tomllib
from pathlib import Path

from ..errors import UsageError
from ..records import atomic_write

PROJECT = "pyproject.toml"
NAMING = ("*.md", "notebooks/*.ipynb", "reports/**/*.md", "reports/**/*.ipynb", "reports/**/*.html")
FORM = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?/[\w.-]{1,100}"  # what GitHub allows
NOBODY = "your-name"  # the owner until somebody's account stands there
UNKNOWN = f"{NOBODY}/mnist-utils"


def current(root: Path = Path(), default: str = "") -> str:
    """`owner/name` as the project in `root` has it, else the default. Raises UsageError without one."""
    try:
        project = tomllib.loads((root / PROJECT).read_text(encoding="utf-8"))["project"]
        return project["urls"]["Repository"].removeprefix("https://github.com/")
    except (OSError, ValueError, KeyError):
        if not default:
            message = f"no {PROJECT} with a Repository here; run this in a clone"
            raise UsageError(message) from None
        return default


def site(repository: str) -> str:
    """The address at which GitHub Pages serves the folder reports/ of `owner/name`."""
    owner, name = repository.split("/")
    return f"https://{owner}.github.io/{name}/"


def rename(new: str, root: Path = Path()) -> list[Path]:
    """Put `new`, as owner/name, in the place of the present one under `root`; the files changed.

    Each file is replaced whole, `pyproject.toml` last: after an interruption the same call goes on.
    Links are changed byte by byte, so a file need not be UTF-8. Raises UsageError.
    """
    if not re.fullmatch(FORM, new, re.ASCII) or new.endswith(("/.", "/..", ".git")):
        raise UsageError(f"the repository must be given as owner/name, got {new!r}")
    old, changed = current(root), []
    link = re.compile(
        rf"((?:github\.com|google\.com/github)/){re.escape(old)}(?!\.?[\w-])".encode()
    )
    naming = {path for pattern in NAMING for path in root.glob(pattern) if path.is_file()}
    for path in [*sorted(naming), root / PROJECT]:
        before = path.read_bytes()
        after = link.sub(rb"\g<1>" + new.encode(), before)
        after = after.replace(site(old).encode(), site(new).encode())
        if after != before:
            with atomic_write(path) as part:
                part.write_bytes(after)
            changed.append(path)
    return changed
