"""What a newcomer gets: the lock, the Makefile, the command's start-up, and no trace of the machine it was made on."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TARGETS = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def pinned() -> dict[str, str]:
    """Locked versions by name, for this interpreter and system."""
    lines = (ROOT / "requirements.lock").read_text()
    found = re.findall(r"^([a-z0-9._-]+)==([^ ;\\\n]+)(?: ; ([^\\\n]+))?", lines, re.MULTILINE)
    return {name: version for name, version, marker in found if not marker or Marker(marker.strip()).evaluate()}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def python(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the lock ---------------------------------------------------------------------------------------------------------


def test_lock_has_an_exact_version_and_a_hash_for_every_requirement() -> None:
    entries = re.split(r"\n(?=[^\s#])", (ROOT / "requirements.lock").read_text())
    entries = [e for e in entries if not e.startswith("#")]
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==[^ ;\\]+( ;[^\\]*)? \\\n", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_lock_names_no_url_and_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(-|[a-z0-9._-]+ @ )(?!-hash)", re.sub(r"^ +--hash.*$", "", text, flags=re.M), re.M)


def test_lock_satisfies_pyproject_and_holds_what_setup_needs() -> None:
    versions = pinned()
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    wanted += PROJECT["build-system"]["requires"]  # installed with --no-build-isolation
    for requirement in map(Requirement, [*wanted, "uv"]):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not in requirements.lock: run make lock"
        assert requirement.specifier.contains(versions[name], prereleases=True), f"{requirement}: run make lock"


def test_installed_versions_are_the_locked_ones() -> None:
    versions = pinned()
    direct = [canonicalize_name(Requirement(d).name) for d in PROJECT["project"]["dependencies"]]
    assert {n: importlib.metadata.version(n) for n in direct} == {n: versions[n] for n in direct}


def test_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert importlib.metadata.version("crossview") == version
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    assert heading[1] == version


# --- tracked files ----------------------------------------------------------------------------------------------------


def test_no_tracked_file_names_this_machine_or_a_registry() -> None:
    places = re.compile(r"(?<![\w.$}])/(?:root|work|home/\w+|Users/\w+)/")
    hosts = re.compile(r"py[p]i\.org|python[h]osted\.org|download\.py[t]orch\.org|[a]naconda\.org|[m]irrors?\.\w+\.\w+")
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {m[0]}" for p in (places, hosts) for m in p.finditer(text)]
    assert not found


def test_resolved_uv_lock_is_not_tracked() -> None:
    assert ROOT / "uv.lock" not in tracked()


def test_every_package_has_a_tracked_file() -> None:
    folders = {path.parent for path in tracked() if path.suffix == ".py"}
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        folder = ROOT.joinpath(*package.split(".")[1:] or [package])
        assert folder in folders, f"{package}: git holds no .py file in it, so a clone cannot be installed"


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_page_names_only_existing_targets_commands_and_files(page: Path) -> None:
    text = page.read_text()
    code = "\n".join(re.findall(r"```(?:sh|text)?\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))
    assert set(re.findall(r"(?:^|[\s;])make ([a-z]+)", code)) <= TARGETS
    commands = set(
        re.findall(r"^  ([\w-]+) ", python("from crossview.platform.cli.main import main; main(['--help'])"), re.M)
    )
    assert set(re.findall(r"(?:^|[\s/;])crossview ([a-z][\w-]*)", code, re.MULTILINE)) <= commands
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_readme_shows_real_output() -> None:
    assert not re.search(r"^[A-Z]+ OUTPUT$", (ROOT / "README.md").read_text(), re.MULTILINE)


# --- the Makefile -----------------------------------------------------------------------------------------------------

UV = """#!/bin/sh
echo "$@" >>"$LOG"
case "$1 $2" in
  "venv --quiet") mkdir -p .venv/bin; ln -s "$REAL" .venv/bin/python ;;
  "pip install") [ ! -e broken ] || exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the set-up reads, with a `uv` that only notes what it was asked for."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text(UV)
    (tmp_path / "bin" / "uv").chmod(0o755)
    return tmp_path


def make(checkout: Path, *args: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run make there; also the calls of uv that it made."""
    log = checkout / "log"
    log.unlink(missing_ok=True)
    path = f"{checkout / 'bin'}:/usr/bin:/bin"
    done = subprocess.run(
        ["make", "--no-print-directory", *args],
        cwd=checkout,
        env={"PATH": path, "LOG": str(log), "REAL": sys.executable, "HOME": str(checkout), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done, log.read_text().splitlines() if log.exists() else []


def test_make_alone_lists_every_target_with_a_line() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    for target in set(phony[1].split()) - {"force"}:
        assert re.search(rf"^  {target} +\S.*\.$", listed, re.MULTILINE), target


def test_setup_runs_once_and_again_when_the_lock_or_the_place_changes(checkout: Path) -> None:
    done, calls = make(checkout, "setup")
    assert done.returncode == 0, done.stderr
    assert [c.split()[0:2] for c in calls if c != "--version"] == [
        ["venv", "--quiet"],
        ["pip", "install"],
        ["pip", "install"],
    ]
    assert "--require-hashes" in next(c for c in calls if "requirements.lock" in c)
    assert make(checkout, "setup")[1] == []
    (checkout / "requirements.lock").touch()
    assert [c for c in make(checkout, "setup")[1] if "requirements.lock" in c]
    assert make(checkout, "setup")[1] == []
    moved = checkout.rename(checkout.with_name("moved"))
    assert [c for c in make(moved, "setup")[1] if "requirements.lock" in c]


def test_interrupted_setup_is_taken_up_again(checkout: Path) -> None:
    (checkout / "broken").touch()
    assert make(checkout, "setup")[0].returncode != 0
    (checkout / "broken").unlink()
    assert make(checkout, "clean")[0].returncode == 0  # it must not hide that the environment is half made
    done, calls = make(checkout, "setup")
    assert done.returncode == 0, done.stderr
    assert "interrupted" in done.stdout
    assert [c.split()[0] for c in calls if c != "--version"] == ["venv", "pip", "pip"]
    (checkout / ".venv" / "bin" / "python").unlink()  # the interpreter went away
    assert [c for c in make(checkout, "setup")[1] if c.startswith("venv")]


def test_setup_waits_for_another_one(checkout: Path) -> None:
    (checkout / "build").mkdir()
    other = subprocess.Popen(["sleep", "1.5"])
    (checkout / "build" / "setup.pid").write_text(f"{other.pid}\n")
    reaper = threading.Thread(target=other.wait)  # else it would stay as a zombie, which `kill -0` takes for alive
    reaper.start()
    done, calls = make(checkout, "setup")
    reaper.join()
    assert done.returncode == 0, done.stderr
    assert f"process {other.pid}" in done.stdout
    assert [c for c in calls if "requirements.lock" in c]


def test_setup_names_the_missing_python(checkout: Path) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (checkout / "bin" / name).write_text("#!/bin/sh\n[ $1 = --version ] && echo Python 3.9.2 && exit\nexit 1\n")
        (checkout / "bin" / name).chmod(0o755)
    done, calls = make(checkout, "setup", "PYTHON=")
    assert done.returncode != 0
    assert "3.11" in done.stderr
    assert "Python 3.9.2" in done.stderr
    assert calls == []


def test_clean_keeps_the_users_runs_and_data(checkout: Path) -> None:
    kept = ["runs/mine/__pycache__/x", "data/__pycache__/x", ".venv/__pycache__/x"]
    gone = ["runs/quickstart/x", "build/x", ".mypy_cache/x", "methods/__pycache__/x"]
    for name in kept + gone:
        (checkout / name).parent.mkdir(parents=True)
        (checkout / name).touch()
    done, _ = make(checkout, "clean")
    assert done.returncode == 0, done.stderr
    assert [n for n in kept + gone if (checkout / n).exists()] == kept


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["train", "byov", "--help"], ["prepare", "--help"]])
def test_help_imports_neither_torch_nor_ray(args: list[str]) -> None:
    code = f"""
import sys
from crossview.platform.cli.main import main
try:
    main({args!r})
except SystemExit as end:
    assert not end.code, end.code
loaded = {{"torch", "ray", "timm", "sklearn", "matplotlib"}} & set(sys.modules)
assert not loaded, loaded
"""
    assert "crossview" in python(code)


def test_rays_uv_hook_is_off_before_ray_is_imported() -> None:
    code = "import os, crossview.platform.cluster.connect; print(os.environ['RAY_ENABLE_UV_RUN_RUNTIME_ENV'])"
    assert python(code).strip() == "0"
