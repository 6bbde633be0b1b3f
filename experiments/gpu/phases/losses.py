"""The tests on this device, and PALU at the shapes of a published model."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import torch

from phases.harness import DEVICE, GPU, ROOT, SMALL, peak_gib, reset_peak, save, synchronize
from phases.models import llama_1b, random_model


def run_tests(name: str, *paths: str) -> None:
    """Run tests with ``pytest --device`` and save the last lines of the report."""
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES" or value}
    command = [sys.executable, "-m", "pytest", "--device", DEVICE, "-p", "no:cacheprovider", "-rf", "--tb=short"]
    command += ["-m", "not slow", "--maxfail=10", *paths]
    start = time.time()
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = result.stdout.strip().splitlines()
    content = {"rc": result.returncode, "seconds": round(time.time() - start, 1), "device": DEVICE, "tail": lines[-25:]}
    if result.returncode:
        content |= {"report": result.stdout[-6000:], "errors": result.stderr[-1000:]}
    save(name, content)


def golden() -> None:
    """Golden losses and gradients, cases worked by hand, and the tests of numerics on this device."""
    run_tests("golden", "tests/methods/policy/test_golden_policy.py" if SMALL else "tests/methods")
    if not SMALL:
        run_tests("golden, numerics", "tests/numerics")


def tests() -> None:
    """The tests of rollout and engine, and of resuming after SIGKILL, on this device; each saved on its own."""
    if SMALL:
        run_tests("tests, engine", "tests/engine/test_step.py")
        return
    run_tests("tests, rollout", "tests/rollout")
    run_tests("tests, engine", "tests/engine")
    run_tests("tests, kill and resume", "tests/rl/test_kill_and_resume.py")


def palu() -> None:
    """A few updates of PALU (preset ``official``) at Llama-3.2-1B's shapes, V = 128,256, random weights.

    Each update has 8 forget and 8 retain sequences: prompts of 40, answers of 64 and sensitive spans of 10 tokens.
    """
    from rlx.engine.step import Engine
    from rlx.registry import Method, get
    from rlx.specs.train import Model, Optim
    from rlx.unlearning.build import freeze_head
    from rlx.unlearning.reference import reference_constants
    from rlx.unlearning.update import UnlearnStep, side_needs, update_once

    component = get("unlearn", "palu")
    results: dict[str, Any] = {}
    lm = random_model(llama_1b())
    freeze_head(lm)
    engine = Engine(lm, Model(), Optim(lr=1e-5), 100, 16384)
    mean_row_d = lm.get_output_embeddings().weight.detach().mean(dim=0)
    for top_k in (50, 1000):
        method = Method(component, component.hyper(top_k=top_k))
        needs = component.needed(method.hyper)
        names = {need for need in side_needs(needs, "forget") if need.startswith("ref_")}
        rows = sequences(lm.config.vocab_size)
        start = time.perf_counter()
        constants = reference_constants(engine, rows[:8], names, top_k, None)
        seconds_constants = time.perf_counter() - start
        step = UnlearnStep(method, with_constants(rows, constants), needs, mean_row_d=mean_row_d)
        reset_peak()
        durations, means = [], []
        for _ in range(4):
            start = time.perf_counter()
            outcome = update_once(engine, step, None)
            synchronize()
            durations.append(time.perf_counter() - start)
            means.append(dict(outcome.means))
        results[f"top_k {top_k}"] = {
            "s an update": durations,
            "s of the constants": seconds_constants,
            "peak GiB": peak_gib(),
            "means": means,
            "autocast": str(torch.get_autocast_dtype(DEVICE)) if GPU else "none",
        }
        save("palu", results)


def sequences(vocabulary: int) -> list[Any]:
    """8 forget and 8 retain rows without constants."""
    from rlx.numerics.collate import TokenSequence
    from rlx.unlearning.update import Row

    prompt, answer, begin, span = (40, 64, 20, 10) if not SMALL else (6, 8, 2, 3)
    rows = []
    for index in range(16):
        ids = [3 + (index * 7919 + k * 104729) % (vocabulary - 3) for k in range(prompt + answer)]
        sensitive = tuple(begin <= k < begin + span and index < 8 for k in range(answer))
        sequence = TokenSequence(tuple(ids[:prompt]), tuple(ids[prompt:]))
        rows.append(Row("forget" if index < 8 else "retain", sequence, (True,) * answer, sensitive, {}))
    return rows


def with_constants(rows: list[Any], constants: list[Any]) -> list[Any]:
    """The rows with the reference constants of the first ones."""
    from dataclasses import replace

    return [replace(row, constants=own) for row, own in zip(rows, constants, strict=False)] + rows[len(constants) :]
