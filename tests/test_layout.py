"""The rules between folders, the package list, and the two names that must not shadow other modules."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("datasets", "downstream", "methods", "platform", "storage", "tune_spaces")
NAMESPACES = ("datasets", "methods", "platform", "tune_spaces")
FORBIDDEN = {
    "storage": {"torch", "ray"},
    "datasets": {"torch", "ray"},
    "methods": {"ray"},
    "downstream": {"ray"},
}
"""Top-level modules that a package may not import."""
INWARD = {
    "storage": {"storage"},
    "datasets": {"datasets", "storage"},
    "methods": {"datasets", "methods"},
    "downstream": {"datasets", "downstream", "methods"},
    "platform": set(PACKAGES),
    "tune_spaces": {"tune_spaces"},
}
"""Packages that a package may import from, beside `crossview.errors`."""


def files(package: str) -> list[Path]:
    return sorted(p for p in (ROOT / package).rglob("*.py") if "__pycache__" not in p.parts)


def imported(file: Path) -> Iterator[str]:
    """Absolute names of all modules that a file imports, wherever in it; names of `from` imports are appended."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ["crossview", *file.relative_to(ROOT).parts][: -node.level] if node.level else []
            source = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def run(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_package_imports_what_it_must_not(package: str) -> None:
    found = {
        f"{file.relative_to(ROOT)}: {module}"
        for file in files(package)
        for module in imported(file)
        if module.split(".")[0] in FORBIDDEN[package]
    }
    assert not found


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_inwards_only(package: str) -> None:
    found = {
        f"{file.relative_to(ROOT)}: {module}"
        for file in files(package)
        for module in imported(file)
        if module.startswith("crossview.") and module.split(".")[1] not in {"errors", *INWARD[package]}
    }
    assert not found


def test_only_platform_and_tune_spaces_import_ray() -> None:
    users = {
        package
        for package in PACKAGES
        for file in files(package)
        for module in imported(file)
        if module.split(".")[0] == "ray"
    }
    assert users <= {"platform", "tune_spaces"}


def imports_between_modules() -> dict[str, set[str]]:
    """By module, the modules of ours that it imports: at the top, in a function, or for types alone."""
    paths = {".".join(("crossview", *f.relative_to(ROOT).with_suffix("").parts)): f for n in PACKAGES for f in files(n)}
    names = {name.removesuffix(".__init__"): file for name, file in paths.items()}
    graph: dict[str, set[str]] = {}
    for name, file in names.items():
        found = {m if m in names else m.rpartition(".")[0] for m in imported(file) if m.startswith("crossview.")}
        graph[name] = (found & names.keys()) - {name}
    return graph


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = imports_between_modules()
    assert len(graph) > 100
    while free := {name for name, found in graph.items() if not found & graph.keys()}:
        graph = {name: found for name, found in graph.items() if name not in free}
    assert not graph, "these import each other, or something that does"


def named_in_the_platform(folder: str, *, identifiers: bool) -> tuple[set[str], list[str]]:
    """The plugins of a folder, and where the platform imports one or names it as a string, or as an identifier."""
    plugins = {p.parent.name for p in (ROOT / folder).glob("*/config.py")}
    found = []
    for file in files("platform"):
        tree = ast.parse(file.read_text(), str(file))
        documentation = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            words: set[str] = set()
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                words = {node.value.lower()}
            elif identifiers and isinstance(node, ast.Name):
                words = {node.id.lower()}
            if words & plugins:
                found.append(f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
        found += [
            f"{file.relative_to(ROOT)}: {m}"
            for m in imported(file)
            if m.startswith(f"crossview.{folder}.") and m.split(".")[2] in plugins
        ]
    return plugins, found


def test_the_platform_names_no_method() -> None:
    """A method is found by the name that the user types."""
    methods, found = named_in_the_platform("methods", identifiers=True)
    assert "byov" in methods
    assert not found


def test_the_platform_names_no_task() -> None:
    """Tasks have ordinary words as names, which variables may have too."""
    tasks, found = named_in_the_platform("downstream", identifiers=False)
    assert "phases" in tasks
    assert not found


def test_the_platform_names_no_dataset() -> None:
    """Neither imported nor as a string: a dataset is found by its name. The world, which studies render, is none."""
    datasets = {p.stem for p in (ROOT / "datasets").glob("*.py")}
    assert {"ae2", "folder"} <= datasets
    words = datasets - {"folder"}  # which is a key of other things too
    found = []
    for file in files("platform"):
        found += [
            f"{file.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(ast.parse(file.read_text(), str(file)))
            if isinstance(node, ast.Constant) and node.value in words
        ]
        found += [
            f"{file.relative_to(ROOT)}: {m}"
            for m in imported(file)
            if m.startswith("crossview.datasets.") and m.split(".")[2] in datasets
        ]
    assert not found


def test_the_package_list_equals_the_tree() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        tool = tomllib.load(file)["tool"]["setuptools"]
    folders = {p.parent for package in PACKAGES for p in files(package)}
    assert tool["package-dir"] == {"crossview": "crossview"} | {f"crossview.{name}": name for name in PACKAGES}
    named = [".".join(("crossview", *f.relative_to(ROOT).parts)) for f in folders]
    assert sorted(tool["packages"]) == sorted(["crossview", *named])


@pytest.mark.parametrize("package", NAMESPACES)
def test_no_init_file_is_directly_in_a_package(package: str) -> None:
    assert not (ROOT / package / "__init__.py").exists(), (
        f"{package}/__init__.py would shadow another module named {package}"
    )


@pytest.mark.parametrize("folder", sorted({p.parent for p in (ROOT / "downstream").glob("*/config.py")}))
def test_every_task_has_its_files(folder: Path) -> None:
    for name in ("__init__.py", "config.py", "task.py"):
        assert (folder / name).is_file(), f"{folder.relative_to(ROOT)}/{name} is missing"


@pytest.mark.parametrize("folder", sorted({p.parent for p in (ROOT / "methods").glob("*/config.py")}))
def test_every_method_has_its_files(folder: Path) -> None:
    for name in ("__init__.py", "config.py", "model.py", "README.md"):
        assert (folder / name).is_file(), f"{folder.relative_to(ROOT)}/{name} is missing"


def test_the_standard_librarys_platform_is_not_shadowed() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import platform
import sysconfig
assert platform.__file__.startswith(sysconfig.get_paths()["stdlib"]), platform.__file__
assert platform.python_version()
"""
    done = run(code, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_standard_librarys_platform_is_not_shadowed_here() -> None:
    import platform
    import sysconfig

    assert platform.__file__ is not None
    assert platform.__file__.startswith(sysconfig.get_paths()["stdlib"])


@pytest.mark.ray
def test_the_standard_librarys_platform_is_not_shadowed_in_a_worker(ray_cluster: object) -> None:
    import ray

    def where_platform_lies(root: str) -> tuple[str, str]:
        import importlib
        import sys
        import sysconfig

        sys.path.insert(0, root)
        sys.modules.pop("platform", None)
        return str(importlib.import_module("platform").__file__), sysconfig.get_paths()["stdlib"]

    file, stdlib = ray.get(ray.remote(where_platform_lies).options(num_cpus=0).remote(str(ROOT)))
    assert file.startswith(stdlib)


def configuration_modules() -> list[str]:
    methods = sorted(p.parent.name for p in (ROOT / "methods").glob("*/config.py"))
    tasks = sorted(p.parent.name for p in (ROOT / "downstream").glob("*/config.py"))
    return [
        *(f"crossview.methods.{name}.config" for name in methods),
        *(f"crossview.downstream.{name}.config" for name in tasks),
        "crossview.platform.config",
        "crossview.platform.evaluate.tasks",
        "crossview.platform.cli.main",
    ]


@pytest.mark.parametrize("module", configuration_modules())
def test_configuration_imports_neither_torch_nor_ray(module: str) -> None:
    """So that `--help` answers at once."""
    done = run(
        f"import sys, {module}; print([m for m in ('torch', 'ray', 'timm') if m in sys.modules])", cwd=ROOT.parent
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
