"""The workflows, the Dockerfile and the issue templates agree with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}


def test_every_supported_python_is_tested_on_each_change_and_once_a_week_with_oldest_and_newest_versions():
    assert PYTHONS == ["3.11", "3.12", "3.13"]
    each = WORKFLOWS["ci"]["jobs"]["check-and-test"]["strategy"]["matrix"]["include"]
    assert [entry["python"] for entry in each] == PYTHONS
    assert each[0]["command"] == "bash .ci/run" and all(entry["command"] == "make test" for entry in each[1:])
    weekly = WORKFLOWS["versions"]["jobs"]["test"]["strategy"]["matrix"]
    assert weekly == {"python": PYTHONS, "resolution": ["lowest-direct", "highest"]}


def test_every_requirement_has_a_lower_bound_so_that_the_oldest_versions_are_defined():
    for requirement in PROJECT["dependencies"]:
        assert re.search(r"(>=|==)\d", requirement), requirement


@pytest.mark.parametrize("name", ["ci", "versions", "release"])
def test_a_workflow_has_a_trigger_a_time_limit_and_pinned_actions(name):
    workflow = WORKFLOWS[name]
    assert workflow[True], "YAML reads the key 'on' as true"
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert "run" in step or re.search(r"@(v\d+|release/v\d+)$", step["uses"])
        assert "timeout-minutes" in job or name == "release"


def test_the_docker_image_copies_what_exists_and_installs_extras_that_exist():
    text = (ROOT / "Dockerfile").read_text()
    sources = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert sources and all((ROOT / name).exists() for name in sources)
    (extras,) = re.findall(r'^ARG EXTRAS="\[(.+)\]"', text, re.MULTILINE)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {name.removeprefix("!") for name in ignored if name.startswith("!")} == set(sources)


def test_issue_templates_are_complete():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = yaml.safe_load(path.read_text())
        assert form["name"] and form["description"]
        assert all(field["attributes"]["label"] and field["id"] for field in form["body"])
