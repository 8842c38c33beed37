"""The rooms of the package: who may import whom, and that nobody imports another module's private names."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "mnist_utils"
FILES = sorted(PACKAGE.rglob("*.py"))
# Each room may import the core (the modules at the top of the package), itself, and the rooms named here.
ROOMS = {"": set(), "batch": set(), "reports": set(), "grading": set(), "bench": {"batch"}}
SHARED_WITH_GRADING = {
    "assignment",
    "errors",
    "records",
    "templating",
}  # all that grading needs of the core


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module by its path inside the package; "" is the core."""
    return parts[0] if parts and parts[0] in ROOMS else ""


def imports(path: Path) -> list[tuple[tuple[str, ...], str]]:
    """Every name that a file of the package imports from the package: (module path inside the package, name)."""
    here = path.relative_to(PACKAGE).parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level]
            module = (*base, *(node.module.split(".") if node.module else ()))
            found += [(module, alias.name) for alias in node.names]
        elif (
            isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mnist_utils"
        ):
            found += [(tuple(node.module.split(".")[1:]), alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name != "__main__.py"], ids=lambda path: path.stem
)
def test_a_room_imports_only_what_it_may(path):
    room = room_of(path.relative_to(PACKAGE).parts)
    for module, name in imports(path):
        target = room_of((*module, name))
        assert target in {"", room} | ROOMS[room], f"{path.name} imports {name} of {target}"
        if room == "grading" and not target:
            assert (*module, name)[0] in SHARED_WITH_GRADING, (
                f"grading imports {name} of {'.'.join(module)}"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_private_name_crosses_a_module(path):
    for module, name in imports(path):
        private = [
            part for part in (*module, name) if part.startswith("_") and not part.startswith("__")
        ]
        assert not private, f"{path.name} imports {private}"


def test_errors_imports_nothing_of_the_package():
    assert not imports(PACKAGE / "errors.py")
