"""Every room imports only from rooms before it, and importing the package does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from bundle import ROOT

ORDER = (
    {"labels", "files", "provenance", "distributed", "optional", "refusals"},
    {"grade_rules", "manifest", "options"},
    {"transforms"},
    {"networks", "metrics"},
    {"method"},
    {"datasets", "steps"},
    {"handlers", "looks", "phantom"},
    {"reporting", "workflow", "predict"},
    {"deploy", "experiments"},
)
"""A room imports from rooms of earlier lines alone, not from those of its own line."""

PLACE_OF = {room: number for number, line in enumerate(ORDER) for room in line}
HOUSE = "bundle"


class Import(NamedTuple):
    """One imported name: of which module, bound to what, and when."""

    module: str
    name: str | None
    bound: str
    at_import: bool

    @property
    def package(self) -> str:
        return self.module.split(".")[0]

    @property
    def room(self) -> str | None:
        """Which room of the house it leads to; None for the house itself and for what is outside."""
        if self.package != HOUSE:
            return None
        inside = self.module.split(".")[1:] or ([self.name] if self.name in PLACE_OF else [])
        return inside[0] if inside else None


def imports(tree: ast.AST, at_import: bool = True) -> Iterator[Import]:
    """Find every import; those in functions or for type checkers alone do not run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield Import(one.name, None, one.asname or one.name.split(".")[0], at_import)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import of {node.module}"
            for one in node.names:
                yield Import(node.module or "", one.name, one.asname or one.name, at_import)
        else:
            lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or _for_typing(node)
            yield from imports(node, at_import and not lazy)


def _for_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / HOUSE).parts[0].removesuffix(".py")


def allowed(importer: str, imported: str) -> bool:
    return importer == imported or PLACE_OF[imported] < PLACE_OF[importer]


MODULES = sorted((ROOT / HOUSE).rglob("*.py"))
INSIDE = [path for path in MODULES if path != ROOT / HOUSE / "__init__.py"]
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
IMPORTS = {path: list(imports(ast.parse(path.read_text(encoding="utf-8")))) for path in [*MODULES, *SCRIPTS]}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    ("importer", "imported", "may"),
    [
        ("reporting", "handlers", True),
        ("handlers", "steps", True),
        ("networks", "labels", True),
        ("networks", "datasets", False),
        ("networks", "metrics", False),
        ("networks", "method", False),
        ("labels", "datasets", False),
        ("handlers", "reporting", False),
    ],
)
def test_arrows_run_downwards(importer, imported, may):
    assert allowed(importer, imported) is may


def test_imports_are_found_wherever_they_stand():
    text = (
        "import a.b\nfrom bundle import labels\nif TYPE_CHECKING:\n    import c\n"
        "def f():\n    from bundle.steps import d as e\n"
    )
    assert list(imports(ast.parse(text))) == [
        Import("a.b", None, "a", True),
        Import("bundle", "labels", "labels", True),
        Import("c", None, "c", False),
        Import("bundle.steps", "d", "e", False),
    ]
    assert [one.room for one in imports(ast.parse(text))] == [None, "labels", None, "steps"]


def test_every_room_has_one_place_in_the_order():
    assert sum(map(len, ORDER)) == len(PLACE_OF)
    assert {room_of(path) for path in INSIDE} == set(PLACE_OF)


@pytest.mark.parametrize("path", INSIDE, ids=named)
def test_a_room_imports_only_what_it_may(path):
    rooms = {one.room for one in IMPORTS[path] if one.room is not None}
    assert {room for room in rooms if not allowed(room_of(path), room)} == set()


def test_no_two_rooms_import_each_other():
    arrows = {(room_of(path), one.room) for path in INSIDE for one in IMPORTS[path] if one.room}
    assert {arrow for arrow in arrows if arrow[0] != arrow[1] and arrow[::-1] in arrows} == set()


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("mlflow", ("bundle/handlers/", "bundle/experiments/")),
        ("pytorch_grad_cam", ("bundle/method/heat_maps.py", "scripts/benchmarks/")),  # there as a peer
        ("fire", ("scripts/",)),
        ("jinja2", ("bundle/reporting/",)),
    ],
)
def test_a_package_is_imported_only_at_home(package, homes):
    users = [named(path) for path, found in IMPORTS.items() if any(one.package == package for one in found)]
    assert users
    assert [user for user in users if not user.startswith(homes)] == []


def test_mlflow_is_imported_only_when_a_run_is_tracked():
    assert [
        named(path) for path, found in IMPORTS.items() if any(o.package == "mlflow" and o.at_import for o in found)
    ] == []


def test_nothing_hides_this_package_under_its_own_name():
    """As ``from monai import bundle`` would."""
    hidden = {named(path) for path, found in IMPORTS.items() for one in found if one.bound == HOUSE != one.package}
    assert hidden == set()


def test_importing_the_house_does_nothing():
    code = "import sys, bundle; print(*(name for name in ('torch', 'monai', 'numpy', 'mlflow') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
