"""Imports run downwards only: a module knows what stands below it, and nothing above."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "delrec_hf"
FLOORS = (
    {"__main__"},
    {"cli"},
    {"model_commands"},
    {"launch"},
    {"demo"},
    {"serving"},
    {"planning"},
    {"runs"},
    {"batch"},
    {"hub", "recommender"},
    {"explain"},
    {"reporting"},
    {"evaluation"},
    {"training"},
    {"ranking"},
    {"modeling", "teachers"},
    {"instructions"},
    {"data"},
    {
        "checkpoints",
        "chunks",
        "callbacks",
        "devices",
        "finite",
        "resources",
        "shards",
        "files",
        "filled_batches",
        "hashes",
        "home",
        "labels",
        "logging",
        "errors",
        "extras",
        "title_words",
        "trackers",
        "__init__",
    },
)
"""From the top down. Rooms of one floor do not know each other; ground-floor modules may."""


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(name: str, tree: ast.AST) -> Iterator[str]:
    """Yield the modules of the package that a module imports, also inside its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively; write the whole name"
            source = str(node.module)
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield whole if whole in MODULES else source
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Modules that are loaded by name: lazy attributes, the recipe's sections.
            yield node.value


def imports() -> dict[str, set[str]]:
    found = {}
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found[name] = {one for one in imported(name, tree) if one in MODULES} - {name}
    return found


IMPORTS = imports()


def room(name: str) -> str:
    return "__init__" if name == "delrec_hf" else name.split(".")[1]


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(name) in rooms)


def test_every_module_has_its_floor() -> None:
    known = set().union(*FLOORS)
    assert {room(name) for name in MODULES} <= known


@pytest.mark.parametrize("name", [name for name in MODULES if name != "delrec_hf"])
def test_a_module_imports_nothing_from_above_or_beside(name: str) -> None:
    for other in IMPORTS[name] - {"delrec_hf"}:
        if room(other) == room(name):
            continue
        below = floor(other) > floor(name)
        on_the_ground = floor(other) == floor(name) == len(FLOORS) - 1
        assert below or on_the_ground, f"{name} imports {other}"


def test_no_imports_run_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name in done:
            return
        # The package's own module offers names from above, for users; inside, nobody asks for them.
        for other in sorted(IMPORTS[name] - {"delrec_hf"}):
            visit(other, (*path, name))
        done.add(name)

    for name in MODULES:
        if name != "delrec_hf":
            visit(name, ())


def test_the_check_sees_an_import_inside_a_function() -> None:
    text = "def push():\n    from delrec_hf.hub.push import push\n"
    assert set(imported("x", ast.parse(text))) == {"delrec_hf.hub.push"}
