"""Every number of a certificate follows from the models: recomputed without rlx (recompute.py), equal to 1e-6."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlx.specs.unlearn import Forget
from rlx.unlearning.data.sets import load_sets

HERE = Path(__file__).parent
EMBEDDED = HERE.parents[1] / "rlx" / "assets" / "minitofu"
LIMIT, NEW_TOKENS, BITS, PREFIX = 20, 24, 4, 3
spec = importlib.util.spec_from_file_location("recompute", HERE / "recompute.py")
recompute = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recompute)


def same(value):
    return pytest.approx(value, rel=1e-6, abs=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    runs = tmp_path_factory.mktemp("recomputed")
    command = [sys.executable, "-m", "rlx.cli", "unlearn", "--against", "", "--epochs", "3", "--runs-dir", str(runs)]
    for setting in (
        f"evaluation.limit={LIMIT}", f"evaluation.max_new_tokens={NEW_TOKENS}", "tracker.mlflow=false",
        f"evaluation.quantize_bits={BITS}", f"evaluation.prefix_tokens={PREFIX}", "evaluation.every=3",
    ):  # fmt: skip
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    (folder,) = [path.parent for path in runs.glob("*/certificate.json")]
    return folder, json.loads((folder / "certificate.json").read_text())


@pytest.fixture(scope="module")
def rows():
    sets = load_sets(Forget(source="minitofu"), LIMIT)
    parts = {"forget": sets.forget, **{part: rows for part, rows in sets.measured.items() if part != "holdout"}}
    keys = ("id", "question", "answer", "paraphrase", "wrong", "spans")
    return {part: [{key: getattr(r, key) for key in keys} for r in requests] for part, requests in parts.items()}


@pytest.fixture(scope="module")
def models(run):
    return {"before": EMBEDDED / "target", "after": run[0] / "model", "retain_model": EMBEDDED / "retain"}


@pytest.fixture(scope="module")
def scored(models, rows):
    result = {}
    for name, folder in models.items():
        loaded = recompute.load(folder)
        result[name] = {
            part: {row["id"]: recompute.scores(*loaded, row, NEW_TOKENS) for row in of_part}
            for part, of_part in rows.items()
        }
    return result


def test_the_script_is_short_and_independent():
    text = (HERE / "recompute.py").read_text()
    assert len(text.splitlines()) < 100
    assert "rlx" not in text


STRICT = "extraction_strength_strict"


def test_probability_extraction_strength_rouge_and_truth_ratio_of_every_request(run, scored):
    for row in run[1]["requests"]:
        for model, parts in scored.items():
            for name in ("probability", "extraction_strength", "rouge_l_recall", "truth_ratio", STRICT):
                assert row[model][name] == same(parts["forget"][row["id"]][name]), (row["id"], model, name)
        assert row["baseline"]["probability"] == same(scored["retain_model"]["forget"][row["id"]]["probability"])


def test_means_kolmogorov_smirnov_and_utility(run, scored):
    final = [row["id"] for row in run[1]["requests"] if row["half"] == "final"]
    retain = np.array([scored["retain_model"]["forget"][i]["truth_ratio"] for i in final])
    for model, parts in scored.items():
        metrics = {name: estimate["value"] for name, estimate in run[1]["aggregates"][model].items()}
        forget = [parts["forget"][i] for i in final]
        ratios = np.array([one["truth_ratio"] for one in forget])
        means = {
            "forget_Q_A_Prob": np.mean([one["probability"] for one in forget]),
            "extraction_strength": np.mean([one["extraction_strength"] for one in forget]),
            "forget_Q_A_ROUGE": np.mean([one["rouge_l_recall"] for one in forget]),
            "forget_truth_ratio": np.mean(np.minimum(ratios, 1 / ratios)),
        }
        d, p = recompute.kolmogorov_smirnov(ratios, retain)
        means |= {"forget_quality_D": d, "forget_quality": p, "forget_quality_n": len(final)}
        means |= recompute.utility({part: list(s.values()) for part, s in parts.items() if part != "forget"})
        assert {name: metrics[name] for name in means} == {name: same(value) for name, value in means.items()}


def test_recovery_by_rounded_weights_and_by_a_prefix(run, models, rows, scored):
    final = [row for row in rows["forget"] if _half(run[1], row["id"]) == "final"]
    plain = {m: np.array([p["forget"][r["id"]]["rouge_l_recall"] for r in final]) for m, p in scored.items()}
    attacks = {attack["name"]: attack for attack in run[1]["attacks"]}
    recalls = {name: {} for name in attacks if not name.startswith("relearn")}
    assert set(recalls) == {"quantize", "quantize_8", "prefix", "prefix_1", "prefix_5", "paraphrase"}
    for who, folder in models.items():
        model, tokenizer = recompute.load(folder)
        for tokens, name in ((1, "prefix_1"), (PREFIX, "prefix"), (5, "prefix_5")):
            recalls[name][who] = np.array([_rest(model, tokenizer, row, tokens) for row in final])
        recalls["paraphrase"][who] = np.array([_completed(model, tokenizer, row) for row in final])
        for bits, name in ((8, "quantize_8"), (BITS, "quantize")):
            rounded = recompute.quantized(recompute.load(folder)[0], bits)
            texts = [recompute.answer(rounded, tokenizer, r["question"], r["answer"], NEW_TOKENS)[0] for r in final]
            recalls[name][who] = np.array([recompute.rouge(r["answer"], t) for r, t in zip(final, texts, strict=True)])
    for name, attacked in recalls.items():
        original = plain["before"] if name.startswith("quantize") else attacked["before"]
        a, o, y = (column.mean() for column in (attacked["after"], original, attacked["retain_model"]))
        levels = [attacks[name][key] for key in ("attacked", "original", "yardstick")]
        assert levels == [same(a), same(o), same(y)]
        recovered = attacks[name]["recovery"]["value"]
        assert recovered is None if o - y < 0.05 else recovered == same((a - y) / (o - y))


@pytest.mark.parametrize("name", ["relearn_1", "relearn_5", "relearn_20", "relearn"])
def test_recovery_by_relearning_follows_from_the_recalls_of_the_requests(run, name):
    recalls = [r["rouge_l_recall_under_attack"][name] for r in run[1]["requests"] if r["half"] == "final"]
    a, o, y = (np.mean([recall[key] for recall in recalls]) for key in ("attacked", "original", "yardstick"))
    (attack,) = [attack for attack in run[1]["attacks"] if attack["name"] == name]
    assert attack["recovery"]["value"] == same((a - y) / (o - y))


def _half(certificate, request_id):
    return next(row["half"] for row in certificate["requests"] if row["id"] == request_id)


def _completed(model, tokenizer, row):
    """The same for the paraphrased answer, given up to its sensitive part."""
    (span,) = row["spans"]
    head = row["paraphrase"][: row["paraphrase"].index(row["answer"][span.start : span.end])]
    return _rest(model, tokenizer, {**row, "answer": row["paraphrase"]}, len(tokenizer(head)["input_ids"]))


def _rest(model, tokenizer, row, tokens):
    """ROUGE of what follows the given start of the answer."""
    text, head = recompute.answer(model, tokenizer, row["question"], row["answer"], NEW_TOKENS, tokens)
    return recompute.rouge(row["answer"][len(head.strip()) :], text)
