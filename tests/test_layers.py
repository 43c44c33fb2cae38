"""Who may import whom. A file imports from strictly lower layers, or from its own folder."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import skipsr

ROOT = Path(skipsr.__file__).parent
LAYERS = [
    {"errors", "fields"},
    {"times"},
    {"limits", "timeline", "settings", "tracing", "files", "memory"},
    {"clip", "nn", "shots", "weights"},
    {"skipping", "strength", "video", "devices", "metrics"},
    {"backbones"},
    {"catalog"},
    {"loading"},
    {"held"},
    {"pipeline"},
    {"data", "farm"},
    {"train", "evaluation"},
    {"research", "bench"},
    {"web"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def home(path: Path) -> str:
    """The part of the package a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Full names of what a file imports anywhere, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def own(path: Path) -> set[str]:
    """`(part, ...)` of the package that a file imports."""
    found: set[str] = set()
    for name in imports(path):
        if name.split(".")[0] == "skipsr":
            assert "." in name, f"{path} imports the whole package"
            found.add(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_lower_layers_are_imported(path: Path):
    if home(path) == "assets":
        assert not own(path)
        return
    level = LEVEL[home(path)]
    for name in own(path):
        part = name.split(".")[1]
        assert part in LEVEL, f"{name} is in no layer"
        allowed = part == home(path) or LEVEL[part] < level
        assert allowed, f"{home(path)} (layer {level}) imports {name} (layer {LEVEL[part]})"


def test_no_import_goes_in_a_circle():
    """Between modules, imports inside functions included."""
    modules = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in FILES
    }
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        parts = {dep if dep in modules else dep.rpartition(".")[0] for dep in own(path)}
        graph[name] = (parts & modules.keys()) - {name}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)


@pytest.mark.parametrize(
    ("part", "others"),
    [
        ("nn", {"tracing"}),
        ("weights", {"errors", "files", "weights"}),
    ],
)
def test_parts_that_stand_alone(part: str, others: set[str]):
    for path in FILES:
        if home(path) == part:
            found = {name.split(".")[1] for name in own(path)}
            assert found <= others | {part}, path


@pytest.mark.parametrize(
    "part",
    [
        "pipeline",
        "train",
        "evaluation",
        "catalog",
        "loading",
        "data",
        "skipping",
        "farm",
        "web",
        "cli",
    ],
)
def test_no_family_is_known_by_name(part: str):
    families = {p.parent.name for p in (ROOT / "backbones").glob("*/__init__.py")}
    for path in FILES:
        if home(path) == part:
            for name in own(path):
                parts = name.split(".")
                known = parts[1] == "backbones" and len(parts) > 2 and parts[2] in families
                assert not known, f"{path} imports {name}"


def test_families_do_not_know_one_another():
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        if parts[0] == "backbones" and len(parts) == 3:
            for name in own(path):
                target = name.split(".")
                if target[1] == "backbones" and (ROOT / "backbones" / target[2]).is_dir():
                    assert target[2] == parts[1], f"{path} imports {name}"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("av", ["video/"]),
        ("PIL", ["video/"]),
        ("tyro", ["cli/"]),
        ("rich", ["cli/"]),
        ("filelock", ["weights/", "data/sources.py"]),
        ("starlette", ["web/"]),
        ("uvicorn", ["web/"]),
    ],
)
def test_libraries_have_one_home(library: str, allowed: list[str]):
    users = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users, f"nothing imports {library}: take it out of this test and of the dependencies"
    assert all(user.startswith(tuple(allowed)) for user in users), users


def test_optional_libraries_are_imported_where_they_are_used_alone():
    """By name, when they are needed: without them all else works."""
    texts = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in FILES}
    for library, home_file in (("huggingface_hub", "weights/hub.py"), ("gguf", "weights/ggml.py")):
        users = {name for name, text in texts.items() if f'import_module("{library}' in text}
        assert users == {home_file}
        plain = (f"import {library}", f"from {library}")
        assert not [n for n, text in texts.items() if any(way in text for way in plain)]


def test_the_package_does_not_know_comfyui():
    """Its nodes, in `integrations/`, import the package, and never the other way."""
    hosts = {"comfy", "comfy_api", "comfy_execution", "folder_paths"}
    for path in FILES:
        assert not {name.split(".")[0] for name in imports(path)} & hosts, path


@pytest.mark.parametrize("part", ["evaluation", "research"])
def test_measuring_is_loaded_only_when_it_is_asked_for(part: str):
    """By one file of the command line, inside functions; `upscale` and the others do without, and
    nothing of the product imports research."""
    verb = ROOT / "cli" / "evaluate.py"
    users = {path for path in FILES if any(name.split(".")[1] == part for name in own(path))}
    assert verb in users
    evaluating = {"evaluation", "research", "bench"}
    allowed = {"evaluation": evaluating, "research": {"research"}}[part]
    assert {home(path) for path in users - {verb}} <= allowed
    tops = [n for n in tree(verb).body if isinstance(n, ast.ImportFrom)]
    assert tops
    assert not [n.module for n in tops if (n.module or "").startswith(f"skipsr.{part}")]


def test_only_the_command_line_prints():
    for path in FILES:
        if home(path) != "cli":
            for node in ast.walk(tree(path)):
                called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                assert not (called and node.func.id == "print"), f"{path}:{node.lineno}"
