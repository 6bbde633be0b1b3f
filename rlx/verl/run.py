"""A run with verl: write the data, run verl's trainer on Ray, copy metrics and model into the run folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlx.console import warn
from rlx.data.prompts import Prompt, draw_prompts
from rlx.engine.load import load_tokenizer
from rlx.errors import UserError
from rlx.numerics.trust import PREFIX as TRUST
from rlx.numerics.trust import trust_metrics
from rlx.rl.build import load_data
from rlx.rl.display import finish, print_summary, train_recorder
from rlx.runs.folder import RunDir
from rlx.runs.integrity import write_manifest
from rlx.runs.recorder import RunRecorder
from rlx.runs.stop import STOPPED
from rlx.runs.tracking import read_metrics
from rlx.specs.train import Data, Resolved
from rlx.verl.limits import check_installed
from rlx.verl.translate import PLUGIN, Translation, translate

SOURCE = "rlx"
"""Name of the data set in verl."""
POLL = 1.0
"""Seconds between two reads of verl's log."""
RENAMED = {
    "critic/score/mean": "train/reward",
    "critic/rewards/mean": "train/shaped_reward",
    "response_length/mean": "train/response_tokens",
    "response_length/max": "train/response_tokens_max",
    "actor/entropy": "policy/entropy",
    "actor/pg_loss": "optim/loss",
    "actor/grad_norm": "optim/grad_norm",
    "actor/lr": "optim/lr",
    "perf/throughput": "time/tokens_per_s",
    "timing_s/step": "time/step",
    f"val-core/{SOURCE}/acc/mean@1": "eval/sampled_accuracy",
    "actor/rlx/ratio_p99": "trust/ratio_p99",
}
"""verl's names of metrics that a local run has too; ``actor/rlx/x`` becomes ``policy/x``, all others keep their name.

From the sums ``actor/rlx/trust/x``, which verl averages over micro-batches, the metrics ``trust/x`` are computed;
``trust/ratio_p99`` is the mean over micro-batches of their percentiles.

Its ``response_length/clip_ratio`` is not our ``train/truncated``: it counts the responses that are as long as the
batch's longest one.
"""
OWN = "actor/rlx/"
"""Prefix of the statistics of rlx's losses, set by the plug-in."""
SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("id", pa.string())])),
    ]
)


def run_verl(resolved: Resolved, content: dict[str, Any], folder: RunDir) -> int:
    """Start a run with verl, or continue it.

    Returns:
        The exit code: verl's, 0 if the run is complete, 130 if it was stopped.
    """
    check_installed()
    folder.create(content, resolved.model_dump_json(indent=2))
    with folder.locked():
        if folder.summary.exists():
            print_summary(resolved, folder, again=True)
            return 0
        folder.update(resolved.model_dump_json(indent=2))
        try:
            template, problems = prepare(resolved, folder)
        except BaseException:
            folder.discard_start()
            raise
        translation = translate(resolved, folder, template)
        recorder = train_recorder(resolved, folder)
        status = "FAILED"
        try:
            for note in translation.notes:
                recorder.note(f"verl: {note}")
            code = _follow(translation, resolved, folder, recorder, problems)
            status = {0: "FINISHED", STOPPED: "KILLED"}.get(code, "FAILED")
        finally:
            recorder.close(status)
        if code == 0:
            import_results(resolved, folder)
            print_summary(resolved, folder)
        elif code != STOPPED:
            raise UserError(f"verl ended with exit code {code}", fix=f"read {folder.log}", exit_code=1)
        return code


def prepare(resolved: Resolved, folder: RunDir) -> tuple[str | None, int]:
    """Write both parquet files.

    Training rows are in the order in which the local backend would draw them, with each epoch shuffled again.

    Returns:
        A chat template for verl if the tokenizer's is not used, and the number of held-out prompts.
    """
    spec = resolved.spec
    tokenizer = load_tokenizer(resolved.model_folder, spec.model)
    data, held_out = load_data(resolved, tokenizer)
    if data.left_out:
        warn(f"training data: {data.sentence()}")
    folder.verl.root.mkdir(parents=True, exist_ok=True)
    drawn_prompts = draw_prompts(data.prompts, spec.data.weights(), spec.seed, 0, spec.steps * spec.batch.prompts)
    write_rows(drawn_prompts, spec.data, folder.verl.train)
    # verl reads a validation file even if it never validates.
    write_rows(held_out.prompts or data.prompts[:1], spec.data, folder.verl.validation)
    return plain_template(spec.data, tokenizer), len(held_out.prompts)


def write_rows(prompts: Sequence[Prompt], data: Data, path: Path) -> None:
    """Write prompts in verl's schema: messages, the gold answer and the prompt's id.

    Raises:
        UserError: for a prompt with several accepted answers, which verl's rows have no column for.
    """
    several = next((prompt for prompt in prompts if prompt.accepted), None)
    if several is not None:
        raise UserError(
            f"prompt {several.id} has {1 + len(several.accepted)} accepted answers, and backend=verl grades with one",
            fix="give one answer a row, or set backend=local",
        )
    rows = [
        {
            "data_source": SOURCE,
            "prompt": _messages(prompt, data),
            "ability": "reasoning",
            "reward_model": {"style": "rule", "ground_truth": prompt.answer},
            "extra_info": {"index": number, "id": prompt.id},
        }
        for number, prompt in enumerate(prompts)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def _messages(prompt: Prompt, data: Data) -> list[dict[str, str]]:
    """The prompt's messages: system prompt, earlier messages, question with suffix."""
    system = data.system if prompt.system is None else prompt.system
    start = [("system", system)] if system else []
    turns = [*start, *prompt.history, ("user", prompt.question + data.suffix)]
    return [{"role": role, "content": content} for role, content in turns]


def plain_template(data: Data, tokenizer: Any) -> str | None:
    """A template that renders messages as rlx's plain prompts; None if the tokenizer's own template is used.

    Raises:
        UserError: when the tokenizer puts other tokens than its first one around a text.
    """
    if data.chat != "never" and tokenizer.chat_template:
        return None
    around = tokenizer("")["input_ids"]
    if around not in ([], [tokenizer.bos_token_id]):
        raise UserError(
            f"the tokenizer puts {len(around)} special tokens around a plain prompt, and verl has no plain prompts",
            fix="use a model with a chat template, or set backend=local",
        )
    start = tokenizer.bos_token if around else ""
    return start + "{% for m in messages %}{{ m['content'] }}{% if not loop.last %}\n\n{% endif %}{% endfor %}"


def as_record(line: Mapping[str, Any], responses: int, problems: int) -> dict[str, float]:
    """One line of verl's log under our names.

    Args:
        line: ``{"step": 3, "data": {...}}``.
        responses: sampled a step.
        problems: held-out prompts.
    """
    numbers = {name: float(value) for name, value in line["data"].items() if isinstance(value, (int, float))}
    record: dict[str, float] = {"step": int(line["step"])}
    sums = {name.removeprefix(OWN): value for name, value in numbers.items() if name.startswith(OWN + TRUST)}
    record |= trust_metrics(sums)
    for name, value in numbers.items():
        own = name.startswith(OWN)
        if own and name.removeprefix(OWN) in sums:
            continue
        ours = RENAMED.get(name) or (f"policy/{name.removeprefix(OWN)}" if own else f"verl/{name}")
        record[ours] = value
    if "train/response_tokens" in record:
        record["train/tokens"] = round(record["train/response_tokens"] * responses)
    if "eval/sampled_accuracy" in record:
        record["eval/problems"] = problems
    return record


def import_results(resolved: Resolved, folder: RunDir) -> None:
    """Copy the last checkpoint's model into the run folder, then write the summary that marks the run as complete.

    Raises:
        UserError: when verl has left no model.
    """
    source = folder.verl.model(resolved.spec.steps)
    if not (source / "config.json").is_file() or not list(source.glob("*.safetensors")):
        raise UserError(f"verl has left no model in {source}", fix=f"read {folder.log}", exit_code=1)
    temporary = folder.model.with_name(".model")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    write_manifest(temporary)
    shutil.rmtree(folder.model, ignore_errors=True)
    temporary.rename(folder.model)
    finish(folder)


def _follow(translation: Translation, resolved: Resolved, folder: RunDir, recorder: RunRecorder, problems: int) -> int:
    """Start verl, record its metrics as they are written, and return its exit code."""
    _rewind(folder, recorder)
    folder.verl.metrics.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "VERL_USE_EXTERNAL_MODULES": PLUGIN,
        "RLX_RESOLVED": str(folder.resolved.absolute()),
        "VERL_FILE_LOGGER_PATH": str(folder.verl.metrics.absolute()),
        "HYDRA_FULL_ERROR": "1",
    }
    responses = resolved.spec.batch.prompts * resolved.spec.rollout.samples_per_prompt
    last = read_metrics(folder.metrics)[-1]["step"] if read_metrics(folder.metrics) else -1
    with folder.log.open("a", encoding="utf-8") as log:
        verl = subprocess.Popen(translation.command, stdout=log, stderr=log, cwd=folder.verl.root, env=environment)
        try:
            for line in _lines(folder.verl.metrics, verl):
                record = as_record(line, responses, problems)
                if record["step"] > last:
                    recorder.write(record)
        except KeyboardInterrupt:
            verl.wait()
            return STOPPED
    return verl.returncode


def _rewind(folder: RunDir, recorder: RunRecorder) -> None:
    """Cut metrics.jsonl back to the checkpoint from which verl continues."""
    checkpoints = folder.verl.checkpoints
    named = checkpoints / "latest_checkpointed_iteration.txt"
    step = int(named.read_text().strip()) if named.is_file() else -1
    length = 0
    lines = folder.metrics.read_bytes().splitlines(keepends=True) if folder.metrics.is_file() else []
    for line in lines:
        if json.loads(line)["step"] > step:
            break
        length += len(line)
    recorder.rewind(length)


def _lines(path: Path, verl: subprocess.Popen[bytes]) -> Iterator[Mapping[str, Any]]:
    """Every complete line of verl's log, as it is written, until verl has ended."""
    offset = 0
    while True:
        ended = verl.poll() is not None
        written = path.read_bytes()[offset:] if path.is_file() else b""
        for line in written[: written.rfind(b"\n") + 1].splitlines(keepends=True):
            offset += len(line)
            yield json.loads(line)
        if ended:
            return
        time.sleep(POLL)
