"""Evaluation logs of locuslab/open-unlearning (``TOFU_EVAL.json``) as our samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlx.benchmarks.tofu.rouge import rouge_l_recall
from rlx.benchmarks.tofu.scores import ATTACKS, Sample, truth_ratio
from rlx.errors import UserError

EPSILON = 1e-10
"""The constant that open-unlearning adds to the denominators of truth ratios."""
QUESTIONS_AN_AUTHOR = 20


@dataclass(frozen=True, slots=True)
class PartNames:
    """Names of the log entries with the values of one part."""

    part: str
    prob: str
    rouge: str
    ratio: str
    right: str
    wrong: str
    normalised: str = ""


PARTS = (
    PartNames(
        "forget",
        "forget_Q_A_Prob",
        "forget_Q_A_ROUGE",
        "forget_truth_ratio",
        "forget_Q_A_PARA_Prob",
        "forget_Q_A_PERT_Prob",
    ),
    PartNames(
        "retain",
        "retain_Q_A_Prob",
        "retain_Q_A_ROUGE",
        "retain_Truth_Ratio",
        "retain_Q_A_PARA_Prob",
        "retain_Q_A_PERT_Prob",
    ),
    PartNames(
        "real_authors",
        "ra_Q_A_Prob",
        "ra_Q_A_ROUGE",
        "ra_Truth_Ratio",
        "ra_Q_A_Prob",
        "ra_Q_A_PERT_Prob",
        "ra_Q_A_Prob_normalised",
    ),
    PartNames(
        "world_facts",
        "wf_Q_A_Prob",
        "wf_Q_A_ROUGE",
        "wf_Truth_Ratio",
        "wf_Q_A_Prob",
        "wf_Q_A_PERT_Prob",
        "wf_Q_A_Prob_normalised",
    ),
)


def read_log(path: Path) -> dict[str, Any]:
    """The content of a log.

    Raises:
        UserError: when it is missing, not JSON, or holds none of the expected entries.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"log {path} cannot be read ({error})", fix="give a TOFU_EVAL.json file") from None
    expected = {name for parts in PARTS for name in (parts.prob, parts.rouge, parts.ratio)}
    if not isinstance(content, dict) or not expected & set(content):
        raise UserError(f"log {path} holds no entry such as forget_Q_A_Prob", fix="give a TOFU_EVAL.json file")
    return content


def read_samples(path: Path) -> list[Sample]:
    """Every sample of a log file.

    Raises:
        UserError: when it is missing, not JSON, or its entries are not those of such a log.
    """
    log = read_log(path)
    try:
        return samples_of(log)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"log {path} has an entry of another shape ({type(error).__name__}: {error})"
        raise UserError(problem, fix="give a TOFU_EVAL.json file of locuslab/open-unlearning") from None


def samples_of(log: Mapping[str, Any]) -> list[Sample]:
    """Every sample of a log, with its derived scores recomputed.

    ROUGE comes from the stored texts, truth ratios and normalised probabilities from the stored losses and
    probabilities.
    """
    samples: list[Sample] = []
    for names in PARTS:
        samples += _part(log, names)
    exact, strength = _scores(log, "exact_memorization"), _scores(log, "extraction_strength")
    attacks = {name: log[f"mia_{name}"] for name in ATTACKS if f"mia_{name}" in log}
    members = {name: _scores(entry, "forget") for name, entry in attacks.items()}
    outsiders = {name: _scores(entry, "holdout") for name, entry in attacks.items()}
    forget = {s.index: s for s in samples if s.part == "forget"}
    for index in _indices([exact, strength, *members.values()]):
        sample = forget.get(index, Sample("forget", index, index // QUESTIONS_AN_AUTHOR))
        forget[index] = replace(
            sample,
            exact=exact.get(index),
            strength=strength.get(index),
            attacks={name: scores[index] for name, scores in members.items() if index in scores},
        )
    holdout = [
        Sample("holdout", i, i // QUESTIONS_AN_AUTHOR, attacks={n: s[i] for n, s in outsiders.items() if i in s})
        for i in _indices(outsiders.values())
    ]
    return [*forget.values(), *(s for s in samples if s.part != "forget"), *holdout]


def _part(log: Mapping[str, Any], names: PartNames) -> list[Sample]:
    """One part's samples; real authors and world facts have no author and are clusters of their own."""
    probs, texts = _values(log, names.prob), _values(log, names.rouge)
    rights, wrongs = _values(log, names.right), _values(log, names.wrong)
    clustered = names.part in ("forget", "retain")
    samples = []
    for index in _indices([probs, texts, rights]):
        sample = Sample(names.part, index, index // QUESTIONS_AN_AUTHOR if clustered else index)
        if index in probs:
            sample = replace(sample, prob=probs[index]["prob"])
        if index in rights and index in wrongs:
            ratio = truth_ratio(rights[index]["avg_loss"], wrongs[index]["avg_loss"], EPSILON)
            sample = replace(sample, truth_ratio=ratio)
        if names.normalised and index in probs and index in wrongs:
            right, wrong = probs[index]["prob"], sum(wrongs[index]["prob"])
            sample = replace(sample, prob_normalised=right / (right + wrong + EPSILON))
        if index in texts:
            sample = replace(sample, rouge=rouge_l_recall(texts[index]["ground_truth"], texts[index]["generation"]))
        samples.append(sample)
    return samples


def _values(log: Mapping[str, Any], name: str) -> dict[int, Any]:
    return {int(index): value for index, value in log.get(name, {}).get("value_by_index", {}).items()}


def _scores(log: Mapping[str, Any], name: str) -> dict[int, float]:
    return {index: value["score"] for index, value in _values(log, name).items()}


def _indices(tables: Iterable[Mapping[int, Any]]) -> list[int]:
    return sorted({index for table in tables for index in table})
