"""Passwords and tokens in the environment, addresses and keys reach no file of a run and no database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlx.credentials import credentials_in, without_credentials
from rlx.errors import UserError

CANARY = "c4n4ryS3cretValue"
HUB_TOKEN = "hf_" + "c4n4ry" * 6
TRAIN = [
    "train", "--steps", "1", "--set", "batch.prompts=4", "--set", "batch.updates_per_rollout=1",
    "--set", "rollout.samples_per_prompt=2", "--set", "evaluation.every=0",
]  # fmt: skip
SECRETS = {
    "HF_TOKEN": HUB_TOKEN, "MLFLOW_TRACKING_PASSWORD": f"{CANARY}1", "MLFLOW_TRACKING_TOKEN": f"{CANARY}2",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}3", "WANDB_API_KEY": f"{CANARY}4", "MY_SERVICE_PASSWORD": f"{CANARY}5",
}  # fmt: skip


def rlx(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlx.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **SECRETS, **environment})


def assert_no_canary(folder: Path, *outputs: str) -> None:
    for path in folder.rglob("*"):
        assert "c4n4ry" not in str(path)
        if path.is_file():
            assert b"c4n4ry" not in path.read_bytes(), path
    assert "c4n4ry" not in "".join(outputs)


def test_secrets_of_the_environment_reach_no_file_of_train_eval_and_compare(tmp_path):
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    done = rlx(*TRAIN, "--runs-dir", str(runs))
    assert done.returncode == 0, done.stderr
    (run,) = [path.parent for path in runs.glob("*/resolved.json")]
    measured = rlx("eval", str(run), "--n", "1", "--limit", "4", "--runs-dir", str(runs))
    assert measured.returncode == 0, measured.stderr
    compared = rlx("compare", str(run), "--runs-dir", str(runs), "--out", str(reports))
    assert compared.returncode == 0, compared.stderr
    assert (runs / "mlflow.db").is_file()
    assert_no_canary(tmp_path, *(part for each in (done, measured, compared) for part in (each.stdout, each.stderr)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", f"model.path=https://user:{CANARY}@hub.example/org/model", "--data", "x.jsonl"],
        ["--set", f"data.source=https://{CANARY}@hub.example/org/data"],
        ["--data", f"https://hub.example/data.jsonl?token={CANARY}"],
        ["--model", f"org/{HUB_TOKEN}"],
        ["--set", f"data.chat_kwargs.api_key={CANARY}"],
        ["--set", f"data.chat_kwargs.password={CANARY}"],
        ["--set", f"cluster.ray_address=ray://user:{CANARY}@head:10001"],
        ["--set", f"tracker.experiment={HUB_TOKEN}"],
        ["--set", f"tracker.experiment={CANARY}5"],
        ["--set", f"tracker.mlflow=https://user:{CANARY}@server"],
    ],
)
def test_a_spec_with_a_secret_is_refused_without_naming_it(arguments, tmp_path):
    done = rlx(*TRAIN, *arguments, "--runs-dir", str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "contains a password or token" in done.stderr
    assert_no_canary(tmp_path, done.stdout, done.stderr)


def test_a_password_in_the_address_of_the_tracker_reaches_no_file_and_no_output(tmp_path):
    uri = f"http://user:{CANARY}@127.0.0.1:9/mlflow?token={CANARY}"
    done = rlx(*TRAIN, "--runs-dir", str(tmp_path), MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    assert "is not reachable" in done.stderr
    assert_no_canary(tmp_path, done.stdout, done.stderr)


def test_sentences_about_errors_hold_no_credentials(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", CANARY)
    texts = [f"https://u:{CANARY}@h/x", f"a {CANARY} b", HUB_TOKEN, f"http://h/?access_token={CANARY}&x=1"]
    for text in texts:
        assert "c4n4ry" not in without_credentials(text)
        assert "c4n4ry" not in str(UserError(text, fix=text))
    assert without_credentials("a@b.c and x:y@z are no addresses") == "a@b.c and x:y@z are no addresses"


def test_the_key_with_a_credential_is_named():
    assert credentials_in({"a": {"b": ["x", "https://u:p@h"]}}) == "a.b.1"
    assert credentials_in({"token": "x"}) == "token"
    assert credentials_in({"max_tokens": 5, "system": "Give the token count.", "params": {"key": "v"}}) == ""
