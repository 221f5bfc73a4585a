from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants_script", ROOT / "tests" / "mutants" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_listed_mutant_applies_once_to_a_file_and_names_tests(script: ModuleType) -> None:
    mutants = script.load(ROOT / "tests" / "mutants")
    assert len(mutants) >= 60
    assert len({mutant.file.partition("/")[0] for mutant in mutants}) >= 4
    for mutant in mutants:
        assert mutant.mutated(ROOT) != (ROOT / mutant.file).read_text(), mutant.what
        assert mutant.tests, mutant.what
        assert all((ROOT / test.partition("::")[0]).is_file() for test in mutant.tests), mutant.what


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with one function, one test of half of it, and two mutants."""
    (tmp_path / "tests" / "mutants").mkdir(parents=True)
    (tmp_path / "code.py").write_text("def add(a, b):\n    return a + b\n\n\ndef unused(a):\n    return a + 1\n")
    (tmp_path / "tests" / "test_code.py").write_text(
        "import sys\nsys.path.insert(0, '.')\nfrom code import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n"
    )
    # Hooks of other plugins must not keep the tests from running.
    (tmp_path / "conftest.py").write_text("def pytest_xdist_make_scheduler(config, log):\n    return None\n")
    entry = '[[mutant]]\nwhat = "{}"\nfile = "code.py"\nold = "{}"\nnew = "{}"\ntests = ["tests/test_code.py"]\n'
    caught, missed = entry.format("a sign", "a + b", "a - b"), entry.format("a one", "a + 1", "a + 2")
    (tmp_path / "tests" / "mutants" / "code.toml").write_text(caught + missed)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_a_mutant_that_tests_notice_is_told_from_one_that_survives(script: ModuleType, project: Path) -> None:
    mutants = script.load(project / "tests" / "mutants")
    before = (project / "code.py").read_text()
    assert script.judge(project, mutants, jobs=2, large=()) == ["killed", "survived"]
    assert (project / "code.py").read_text() == before
    fine, text = script.verdict(mutants, ["killed", "survived"])
    assert not fine
    assert "survives: code.py: a one: NO REASON GIVEN" in text
    assert script.verdict(mutants, ["killed", "timed out"])[0]


def test_an_endless_mutant_is_stopped(script: ModuleType, project: Path) -> None:
    endless = script.Mutant("a loop", "code.py", "return a + b", "while True: pass", ["tests/test_code.py"])
    assert script.judge(project, [endless], jobs=1, limit_s=5.0, large=()) == ["timed out"]


def test_tests_that_fail_anyway_and_changes_that_do_not_apply_are_told(script: ModuleType, project: Path) -> None:
    mutants = script.load(project / "tests" / "mutants")
    (project / "code.py").write_text("def add(a, b):\n    return a + b + 1\n\n\ndef unused(a):\n    return a + 1\n")
    with pytest.raises(ValueError, match=r"occurs 2 times in code\.py; it must occur once"):
        script.judge(
            project, [script.Mutant("x", "code.py", "+ 1", "", ["tests/test_code.py"], source="x.toml")], 1, large=()
        )
    with pytest.raises(ValueError, match=r"tests/test_code\.py killed without any mutant; fix it first"):
        script.judge(project, mutants[:1], jobs=1, large=())
