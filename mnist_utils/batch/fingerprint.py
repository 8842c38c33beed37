"""What a run's outcome follows from, machine and library versions apart.

    fingerprint(Path("notebooks/every_seed.ipynb"), {"seed": 3})

Code counts by its syntax trees, without comments and docstrings, and without what only shows or
keeps results: prose, pictures, records and checkpoints.
"""

import ast
import functools
import hashlib
from pathlib import Path

from ..parameters import read_notebook, read_parameters

PLACES = ("data_dir", "mirror", "out_dir")  # where things lie has no part in what comes out
PACKAGE = Path(__file__).parent.parent
# The modules that decide what a training gives, and those that only show or keep it.
DECIDING = ("augment", "data", "models", "muon", "threads", "training")
SHOWING = ("assignment", "checkpoints", "errors", "layers", "plots", "records", "run")


def fingerprint(path: Path, values: dict) -> dict:
    """The notebook's and the package's code, each as a SHA-256, and every parameter but the places.

    Raises UsageError where `path` is no notebook with parameters.
    """
    changed = path.stat().st_mtime_ns if path.exists() else 0
    notebook, defaults = _of_notebook(path, changed)
    parameters = {name: v for name, v in (defaults | values).items() if name not in PLACES}
    # By default other threads help the first one only where no number changes.
    if parameters.get("threads") == 0:
        parameters["threads"] = 1
    return {"notebook": notebook, "package": _of_package(PACKAGE), "parameters": parameters}


@functools.lru_cache(100)
def _of_notebook(path: Path, changed: int) -> tuple[str, dict]:
    """The digest of the code cells, and the parameters' defaults.

    Left out are the cell that installs the package and the one whose values count by themselves.
    """
    code = []
    for cell in read_notebook(path)["cells"]:
        form = "parameters" in cell["metadata"].get("tags", [])
        if cell["cell_type"] == "code" and not form and "%pip install" not in cell["source"]:
            code.append(_meaning(cell["source"]))
    return _digest(code), {name: p.default for name, p in read_parameters(path).items()}


@functools.cache
def _of_package(folder: Path) -> str:
    files = [folder / f"{name}.py" for name in DECIDING]
    return _digest([_meaning(file.read_text("utf-8")) for file in files if file.exists()])


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n\n".join(filter(None, parts)).encode()).hexdigest()


def _meaning(source: str) -> str:
    try:
        return ast.unparse(_Deciding().visit(ast.parse(source)))
    except SyntaxError:  # a line of IPython's own
        return source


class _Deciding(ast.NodeTransformer):
    """Takes out docstrings, imports of what only shows or keeps, and statements that only draw."""

    def visit_ImportFrom(self, node: ast.ImportFrom):
        own, _, module = (node.module or "").partition(".")
        if node.level:
            module = node.module or ""
        elif own != "mnist_utils":
            return node
        if module in SHOWING:
            return None
        if not module:
            node.names = [alias for alias in node.names if alias.name not in SHOWING]
        return node if node.names else None

    def visit_Expr(self, node: ast.Expr):
        if isinstance(node.value, ast.Constant):
            return None
        calls = [ast.unparse(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)]
        # A picture of something that is computed for it stays: computing may draw random numbers.
        if calls and all(call.startswith("plots.") for call in calls):
            return None
        return node
