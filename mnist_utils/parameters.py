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
SUBMISSION = "01_seed_model"
RESERVED = {"out_dir": "--out"}  # set by the runner itself


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell; `choices` is empty where any value of the type will do."""

    name: str
    type: str
    default: object
    meaning: str = ""
    choices: tuple = ()


def find_notebook(name: str) -> Path:
    """The notebook at the path `name`, or the one in notebooks/ with that stem. Raises UsageError."""
    for path in (Path(name), NOTEBOOKS / f"{Path(name).stem}.ipynb"):
        if path.suffix == ".ipynb" and path.is_file():
            return path
    known = [path.stem for path in all_notebooks()]
    hint = f"; there are {', '.join(known)}" if known else f"; this folder has no {NOTEBOOKS}/, run from a clone"
    raise UsageError(f"no notebook {name!r}{_nearest(Path(name).stem, known)}{hint}")


def all_notebooks() -> list[Path]:
    """The project's notebooks in their order."""
    return sorted(NOTEBOOKS.glob("[0-9a-z]*.ipynb"))


def read_parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that the notebook's cell tagged `parameters` declares, by name.

    Each stands on one line, `name: type = value  # @param ...`, with its meaning in a `# @markdown` line above it
    and, for a choice, the list in its form field. Raises UsageError for a file that is no such notebook.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        source = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
        lines, statements = source.splitlines(), ast.parse(source).body
        declared = [s for s in statements if isinstance(s, ast.AnnAssign)]
        return {s.target.id: _parameter(s, lines[s.lineno - 1], lines[s.lineno - 2]) for s in declared}
    except StopIteration:
        raise UsageError(f"{path} has no cell tagged 'parameters'") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise UsageError(f"{path} cannot be read as a notebook with parameters ({error})") from error


def _parameter(statement: ast.AnnAssign, line: str, above: str) -> Parameter:
    choices = re.search(r"#\s*@param\s*(\[.*?\])", line)
    return Parameter(
        statement.target.id,
        statement.annotation.id,
        ast.literal_eval(statement.value),
        above.removeprefix("# @markdown").strip() if above.startswith("# @markdown") else "",
        tuple(json.loads(choices[1])) if choices else (),
    )


def check_values(path: Path, given: dict[str, str]) -> dict:
    """`given`, texts by name, in the types the notebook declares. Raises UsageError for a name, type or value."""
    declared, values = read_parameters(path), {}
    for name, text in given.items():
        if name in RESERVED:
            raise UsageError(f"{name} is set by {RESERVED[name]}")
        if name not in declared:
            nearest = _nearest(name, declared)
            raise UsageError(f"{path.name} has no parameter {name!r}{nearest}; it has {', '.join(declared)}")
        values[name] = _typed(declared[name], text)
    return values


def _typed(parameter: Parameter, text: str):
    readers = {"int": int, "float": float, "str": str, "bool": {"true": True, "false": False}.__getitem__}
    try:
        value = readers[parameter.type](text.lower() if parameter.type == "bool" else text)
    except (ValueError, KeyError):
        raise UsageError(f"{parameter.name} must be {parameter.type}, got {text!r}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{parameter.name} must be a finite number, got {text!r}")
    if parameter.choices and value not in parameter.choices:
        raise UsageError(f"{parameter.name} must be one of {', '.join(map(str, parameter.choices))}, got {text!r}")
    return value


def _nearest(name: str, known) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
