"""Runs of rlx's own commands: the embedded task and set, the demo and its evaluation, LoRA."""

from __future__ import annotations

import json
from pathlib import Path

from phases.harness import EMBEDDED, ROOT, SMALL, WORK, empty_folder, metrics, pick, rlx, save, settings

CPU_RECORDS = Path(__file__).resolve().parents[1] / "cpu_float32.jsonl"
"""Metric records of the first steps of the embedded task in float32 on a CPU."""
TIMES = ("train/reward", "eval/sampled_accuracy", "time/rollout", "time/update", "time/step")
FIRST = ("train/reward", "optim/loss", "optim/grad_norm", "policy/entropy")
COMPARED = ("train/reward", "optim/grad_norm", "policy/entropy", "train/tokens")


def tiny() -> None:
    """The embedded task in float32 and in the default type, compared with a CPU's float32 records."""
    cases = {
        "float32": ({"model.precision": "float32", "evaluation.every": 0}, 6),
        "auto": ({"evaluation.every": 30, "evaluation.limit": 200}, 3 if SMALL else 30),
    }
    results = {}
    for name, (values, steps) in cases.items():
        runs = empty_folder(f"tiny_{name}")
        arguments = [*EMBEDDED, *settings(values), "--steps", str(steps), "--runs-dir", str(runs)]
        results[name] = rlx(*arguments, limit=45).as_list()
        records = metrics(runs)
        if records:
            results[f"{name} last"] = pick(records[-1], TIMES)
            results[f"{name} first"] = pick(records[min(1, len(records) - 1)], FIRST)
            results[f"{name} eval before"] = records[0].get("eval/sampled_accuracy")
        save("tiny", results)
    here = metrics(WORK / "tiny_float32")
    cpu = [json.loads(line) for line in CPU_RECORDS.read_text().splitlines()]
    pairs = list(zip(here, cpu, strict=False))[1:4]
    results["here and on a CPU, float32"] = [{key: (a[key], b[key]) for key in COMPARED} for a, b in pairs]
    save("tiny", results)


def demo() -> None:
    """The README's first run: seconds, and accuracy by step."""
    runs = empty_folder("demo")
    steps = ["--steps", "2"] if SMALL else []
    results = {"run": rlx(*EMBEDDED, *steps, "--runs-dir", str(runs), limit=130).as_list()}
    accuracy = "eval/sampled_accuracy"
    results["accuracy by step"] = [(record["step"], record[accuracy]) for record in metrics(runs) if accuracy in record]
    results["seconds of all steps"] = sum(record.get("time/step", 0.0) for record in metrics(runs))
    save("demo", results)


def evaluate() -> None:
    """``rlx eval`` of the demo's model, or of the embedded model if the demo did not end."""
    finished = [path.parent for path in (WORK / "demo").glob("*/summary.json")]
    model = str(finished[0] if finished else ROOT / "rlx" / "assets" / "arithmetic")
    options = ["--bench", "arithmetic", "--limit", "8" if SMALL else "64", "--set", "mlflow=false"]
    ended = rlx("eval", model, *options, "--runs-dir", str(empty_folder("eval")), limit=55)
    save("eval", {"model": model, "run": ended.as_list()})


def lora() -> None:
    """Train three steps with LoRA."""
    runs = empty_folder("lora")
    values = settings({"model.lora.rank": 4, "evaluation.every": 0})
    ended = rlx(*EMBEDDED, *values, "--steps", "3", "--runs-dir", str(runs), limit=33)
    save("lora", {"run": ended.as_list(), "model saved": any(runs.glob("*/model/*.safetensors"))})


def unlearn() -> None:
    """``rlx unlearn`` on the embedded set, with its measures, attacks and certificate."""
    runs = empty_folder("unlearn")
    values = settings({"tracker.mlflow": "false", "epochs": 1 if SMALL else 2})
    ended = rlx("unlearn", *values, "--runs-dir", str(runs), limit=85)
    keys = ("method", "verdict", "seconds", "selected_step", "within_budget")
    summaries = [pick(json.loads(path.read_text()), keys) for path in runs.glob("*/summary.json")]
    save("unlearn", {"run": ended.as_list(), "certificate": any(runs.glob("*/certificate.json")), "runs": summaries})
