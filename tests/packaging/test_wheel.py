"""The wheel contains every file that the package needs, and works alone in a clean environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LARGEST = 8 << 20
"""Bytes that the wheel may have."""


def packages_for_building():
    """Why the wheel cannot be built here without downloads; empty if it can."""
    try:  # find_spec("pip") would make `import setuptools` fail in this process
        version("pip")
        return "" if int(version("setuptools").split(".")[0]) >= 77 else "setuptools is older than 77"
    except PackageNotFoundError as error:
        return f"{error.name} is not installed"


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(packages_for_building()), reason=packages_for_building())]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that the project's folder stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    shutil.copytree(ROOT / "rlx", source / "rlx", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--wheel-dir", folder, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel, whose other packages are those of the running one; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # Paths in a .pth file are added without reading the .pth files there, such as that of an editable install of rlx.
    below = [path for path in sys.path if path.endswith("site-packages")]
    (site / "below.pth").write_text("\n".join(below) + "\n")
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*command, "--force-reinstall", wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def run(environment, folder, *arguments):
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "RLX_RUNS_DIR")
    variables = {key: value for key, value in os.environ.items() if key not in left_out}
    variables |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    program, *rest = arguments
    command = [environment / "bin" / program, *rest]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel):
    listed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [path for path in (ROOT / "rlx").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert listed == {path.relative_to(ROOT).as_posix() for path in files}
    for part in ("templates/report.html", "benchmarks/fingerprints.json", "assets/arithmetic/model.safetensors"):
        assert f"rlx/{part}" in listed
    assert wheel.stat().st_size < LARGEST


def test_it_trains_from_an_empty_folder(environment, tmp_path):
    where = run(environment, tmp_path, "python", "-c", "import rlx; print(rlx.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
    run(environment, tmp_path, "rlx", "train", "--algo", "dgpo", "--set", "steps=2", "--set", "tracker.mlflow=false")
    (run_folder,) = tmp_path.glob("runs/dgpo*")
    assert json.loads((run_folder / "summary.json").read_text())["seconds"] > 0
    assert len((run_folder / "metrics.jsonl").read_text().splitlines()) >= 2


def test_its_other_commands_find_their_files(environment, tmp_path):
    assert "dgpo" in run(environment, tmp_path, "rlx", "methods")
    assert "palu" in run(environment, tmp_path, "rlx", "unlearn", "--dry-run")
    assert "arithmetic" in run(environment, tmp_path, "rlx", "eval", "embedded", "--preview")


def test_the_metadata_names_what_the_documents_promise(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    extras = set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE))
    assert {"vllm", "verl", "ray", "trackers", "fast"} <= extras
    assert "Requires-Python: >=3.11" in metadata
    (entry,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/entry_points.txt")]
    assert "rlx = rlx.cli.app:main" in entry


def test_every_upper_bound_and_exact_version_has_its_reason_next_to_it():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    requirements = [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
    bounded = [requirement for requirement in requirements if re.search(r"<|==\d|~=", requirement.split(";")[0])]
    for requirement in bounded:
        (line,) = [line for line in lines if f'"{requirement}"' in line]
        assert "#" in line, line


def test_the_version_and_licence_of_the_citation_are_those_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {PROJECT['version']}" in citation and f"license: {PROJECT['license']}" in citation


def test_errors_and_documents_name_only_extras_that_exist():
    files = [path for folder in ("rlx", "docs") for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md")]
    for path in [*files, ROOT / "README.md"]:
        for names in re.findall(r"rlx\[([a-z,]+)\]", path.read_text()):
            assert set(names.split(",")) <= set(PROJECT["optional-dependencies"]), path
