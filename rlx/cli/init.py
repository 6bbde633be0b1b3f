"""`rlx init`: write a commented spec with the user's file, model and columns in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from rlx.cli.completion import models
from rlx.errors import UserError, did_you_mean

KINDS = ("train", "unlearn", "study")
ROWS = 50
"""Rows of the file that are read to find its columns."""
PROMPT_COLUMNS = ("prompt", "question", "problem", "messages", "query", "instruction", "input", "text")
ANSWER_COLUMNS = ("answer", "solution", "ground_truth", "gold", "target", "label", "expected", "output", "response")


def init(
    kind: Annotated[str, typer.Argument(help="train, unlearn or study.", autocompletion=lambda: list(KINDS))] = "train",
    model: Annotated[
        str | None,
        typer.Option(help="Model: a folder, a hub id, or embedded. Default: embedded.", autocompletion=models),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Your file: prompts, or with unlearn the requests. Default: the embedded task.")
    ] = None,
    command: Annotated[str, typer.Option(help="With study: train or unlearn.")] = "train",
    out: Annotated[Path | None, typer.Option(help="File to write. Default: KIND.yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a commented spec, with your model, your file and the columns that are in it."""
    from rlx.specs.template import spec_template, study_template

    if kind not in KINDS:
        raise UserError(f"kind '{kind}' is not known", fix=did_you_mean(kind, KINDS))
    if command not in KINDS[:2]:
        raise UserError(f"--command '{command}' is not known", fix=did_you_mean(command, KINDS[:2]))
    run_command = command if kind == "study" else kind
    file = out or Path(f"{kind}.yaml")
    if file.exists() and not force:
        raise UserError(f"{file} exists", fix="choose another with --out, or add --force to replace it")
    values, notes = (_train_values if run_command == "train" else _unlearn_values)(model, data)
    if kind == "study":
        benchmarks = ["arithmetic"] if not model and not data else ["gsm8k"]
        text = study_template(run_command, file.stem, values, benchmarks)
    else:
        text = spec_template(kind, values, notes)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror})", fix="choose another with --out") from None
    start = f"rlx compare {file} --plan" if kind == "study" else f"rlx {kind} {file} --preview"
    typer.echo(f"wrote {file}; next: {start}")


def _train_values(model: str | None, data: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and notes of a training spec."""
    values: dict[str, Any] = {"steps": 100, "seed": 0, "model.path": model or "embedded"}
    notes: dict[str, str] = {}
    if data is not None and model in (None, "embedded"):
        raise UserError("--data is given, but the embedded model reads only its own sums", fix="add --model")
    if data is not None:
        columns = _columns(data, "data.source")
        prompt, answer = _column(columns, PROMPT_COLUMNS), _column(columns, ANSWER_COLUMNS)
        values |= {"data.source": data, "data.prompt": prompt or "prompt", "data.answer": answer or "answer"}
        listed = f"columns of {Path(data).name}: {', '.join(columns)}"
        for key, column in (("data.prompt", prompt), ("data.answer", answer)):
            notes[key] = listed if column else f"{listed}. None of them has a usual name: write the right one here"
    elif model not in (None, "embedded"):
        notes["data.source"] = "give a file or a hub data set; without it rlx trains on embedded sums"
    values["algorithm.name"] = "dgpo"
    return values, notes


def _unlearn_values(model: str | None, data: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and notes of an unlearning spec.

    Raises:
        UserError: for a file that cannot be one of requests.
    """
    values: dict[str, Any] = {"seed": 0, "model.path": model or "embedded"}
    notes: dict[str, str] = {}
    if data is not None:
        columns = _columns(data, "forget.source")
        if not ({"question", "answer"} <= set(columns) or "text" in columns):
            raise UserError(
                f"{data} has the columns {', '.join(columns)}, but a request has question and answer, or text",
                fix="rename its columns",
            )
        values["forget.source"] = data
        notes["forget.source"] = f"columns of {Path(data).name}: {', '.join(columns)}"
    elif model not in (None, "embedded"):
        notes["forget.source"] = "give your file of requests here"
    values["method.name"] = "palu"
    return values, notes


def _columns(data: str, key: str) -> list[str]:
    """Names of the columns in the first rows of a local source.

    Raises:
        UserError: when it cannot be read, or has no row.
    """
    from rlx.files.sources import Source, local_files, read_source

    source = Source(data, key=key)
    if local_files(source) is None:
        raise UserError(f"--data '{data}' is not a local file", fix="give one, or write the hub id into the spec")
    rows = [row for row in islice(read_source(source), ROWS) if not row.problem]
    columns = list(dict.fromkeys(name for row in rows for name in row.content))
    if not columns:
        raise UserError(f"--data '{data}' has no row that can be read", fix="see docs/data.md for the formats")
    return columns


def _column(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    """The first usual name among the columns, without regard to upper case."""
    lower = {column.lower(): column for column in columns}
    return next((lower[name] for name in usual if name in lower), None)
