"""rlx doctor: what a machine has, held against what rlx asks for."""

from __future__ import annotations

import http.server
import importlib.metadata
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
import rlx.doctor
{program}
found = rlx.doctor.diagnose(pathlib.Path({str(tmp_path / "runs")!r}))
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
rlx.doctor.requires = lambda name: ["torch>=99", "nosuchpackage>=2", "pytest; extra == 'dev'"]
sys.modules["torch"] = None
"""
    found = findings(tmp_path, program, HF_HUB_OFFLINE="1")
    assert found["torch"][0] == "warning" and "rlx asks for >=99" in found["torch"][1]
    assert found["nosuchpackage"] == ["missing", "not installed", "pip install 'nosuchpackage>=2'"]
    assert "pytest" not in found
    assert found["devices"][0] == "missing" and "torch" in found["devices"][1]
    assert found["memory"][0] in ("ok", "warning") and "GiB" in found["memory"][1]


def test_something_needed_that_is_missing_makes_the_exit_code_1(tmp_path):
    for program, expected in (("", 0), ("sys.modules['torch'] = None;", 1)):
        code = f"import pathlib, sys; {program} from rlx.doctor import doctor; sys.exit(doctor(pathlib.Path()))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        assert done.returncode == expected, done.stderr
        assert ("missing" in done.stdout) == bool(expected)
