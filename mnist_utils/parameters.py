"""The notebooks as sources: where they are and which parameters they declare.

    path = find_notebook("01_seed_model")
    values = check_values(path, {"epochs": "3"})       # typed, or a UsageError before anything runs

Nothing is executed here and nothing is known of what a notebook trains.
"""

import ast
import difflib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError

NOTEBOOKS = Path("notebooks")
SUBMISSION = "quickest"
# Ranges that hold in every notebook; a form may name its own with `min:` and `max:`.
LEAST = {"epochs": 1, "batch_size": 1, "seed": 0, "threads": 0}
MOST = {"seed": 2**32 - 1}  # NumPy takes no larger one
LARGEST = 2**63 - 1  # of any whole number, as torch holds it


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell; `choices` is empty where any value will do."""

    name: str
    type: str
    default: object
    meaning: str = ""
    choices: tuple = ()
    least: float = -LARGEST
    most: float = LARGEST


def find_notebook(name: str) -> Path:
    """The notebook at the path `name`, or the one in notebooks/ of that name. Raises UsageError.

    What looks like a path (a separator, `.ipynb`) or an address is only ever that.
    """
    name, known = str(name), [path.stem for path in all_notebooks()]
    if "://" in name:
        raise UsageError(f"{name!r} is an address; download the notebook and give the file's path")
    if "/" in name or "\\" in name or name.endswith(".ipynb"):
        path = Path(name)
        hint = f"; run the project's own by its name, {path.stem}" if path.stem in known else ""
        missing = f"no notebook {name!r}: there is no such .ipynb file{hint}"
    else:
        path = NOTEBOOKS / f"{name}.ipynb"
        hint = f"there are {', '.join(known)}"
        if not known:
            hint = f"this folder has no {NOTEBOOKS}/, run from a clone"
        missing = f"no notebook {name!r}{_nearest(name, known)}; {hint}"
    if path.suffix == ".ipynb" and path.is_file():
        return path
    raise UsageError(missing)


def all_notebooks() -> list[Path]:
    """The project's notebooks in their order."""
    return sorted(NOTEBOOKS.glob("[0-9a-z]*.ipynb"))


def read_notebook(path: Path) -> dict:
    """The notebook as nbformat 4, converted where it is older.

    Raises UsageError for a file that is no notebook, or one in another language.
    """
    try:
        text = path.read_text(encoding="utf-8")
        notebook = json.loads(text)
        if notebook.get("nbformat", 4) < 4:
            import nbformat

            notebook = nbformat.reads(text, as_version=4)
        language = notebook["metadata"].get("kernelspec", {}).get("language") or "python"
        language = notebook["metadata"].get("language_info", {}).get("name") or language
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise UsageError(f"{path} cannot be read as a notebook ({reason})") from error
    if language.lower() not in ("python", "ipython", "python3"):
        raise UsageError(f"{path} is a notebook in {language}; only Python notebooks are run")
    return notebook


def read_parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that the notebook's cell tagged `parameters` declares, by name.

    Each stands on one line, `name: type = value  # @param ...`, with its meaning in a `# @markdown`
    line above it; its form field may hold a list of choices, or a number's `min:` and `max:`.
    Raises UsageError for a file that is no such notebook.
    """
    cells = read_notebook(path)["cells"]
    try:
        source = next(c["source"] for c in cells if "parameters" in c["metadata"].get("tags", []))
        lines = ["", *source.splitlines()]
        found = [
            _parameter(statement, lines[statement.lineno], lines[statement.lineno - 1])
            for statement in ast.parse(source).body
            if isinstance(statement, ast.AnnAssign)
        ]
    except StopIteration:
        raise UsageError(f"{path} has no cell tagged 'parameters'") from None
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise UsageError(f"{path} has a parameters cell that cannot be read ({error})") from error
    return {parameter.name: parameter for parameter in found}


def _parameter(statement: ast.AnnAssign, line: str, above: str) -> Parameter:
    name = statement.target.id
    form = line.partition("@param")[2]
    choices = re.search(r"\[.*?\]", form)
    meaning = re.match(r"# @markdown\s*(.*?)\s*$", above)
    limits = dict(re.findall(r"\b(min|max)\s*:\s*(-?[\d.]+)", form))
    return Parameter(
        name,
        statement.annotation.id,
        ast.literal_eval(statement.value),
        meaning[1] if meaning else "",
        tuple(json.loads(choices[0])) if choices else (),
        float(limits["min"]) if "min" in limits else LEAST.get(name, -LARGEST),
        float(limits["max"]) if "max" in limits else MOST.get(name, LARGEST),
    )


def check_values(path: Path, given: dict[str, str], declared: dict | None = None) -> dict:
    """`given`, texts by name, in the types the notebook declares.

    `declared` is what `read_parameters` gave before. Raises UsageError for a name, type or value.
    """
    declared = declared or read_parameters(path)
    values = {}
    for name, text in given.items():
        if name == "out_dir":
            raise UsageError("out_dir is set by --out")
        if name not in declared:
            found = f"{_nearest(name, declared)}; it has {', '.join(declared)}"
            raise UsageError(f"{path.name} has no parameter {name!r}{found}")
        values[name] = _typed(declared[name], str(text))
    return values


def _typed(parameter: Parameter, text: str):
    name = parameter.name
    shown = repr(text[:100])
    readers = {"int": int, "float": float, "str": str, "bool": _truth}
    try:
        value = readers[parameter.type](text)
    except (ValueError, KeyError):
        raise UsageError(f"{name} must be {parameter.type}, got {shown}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, got {shown}")
    if parameter.type in ("int", "float"):
        if value < parameter.least:
            raise UsageError(f"{name} must be at least {parameter.least:,}, got {shown}")
        if value > parameter.most:
            raise UsageError(f"{name} must be at most {parameter.most:,}, got {shown}")
    if parameter.choices and value not in parameter.choices:
        choices = ", ".join(map(str, parameter.choices))
        raise UsageError(f"{name} must be one of {choices}, got {shown}")
    return value


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _nearest(name: str, known) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
