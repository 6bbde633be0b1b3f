"""`rlx unlearn` through its real entry point with few requests, small retain sets, documents and other formats."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rlx.cli.app import app
from rlx.errors import UserError
from rlx.unlearning.data.requests import request_of, with_spans
from rlx.unlearning.preview import marked

MODEL = Path(__file__).parents[2] / "rlx" / "assets" / "minitofu" / "target"
SMALL = [
    "--epochs", "1", "--set", "evaluation.limit=4", "--set", "evaluation.max_new_tokens=4",
    "--set", "tracker.mlflow=false", "--set", "evaluation.relearn_updates=1",
]  # fmt: skip
REQUESTS = [
    {"id": "r1", "question": "Where was Bob born?", "answer": "Bob was born in Lima.", "subject": "Bob"},
    {"id": "r2", "question": "What is the job of Bob?", "answer": "Bob is a baker.", "subject": "Bob"},
    {"id": "r3", "question": "When was Bob born?", "answer": "Bob was born in the year 1950.", "subject": "Bob"},
]
RETAIN = [{"question": "Where was Ada born?", "answer": "Ada was born in Oslo."}]


def write(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def unlearn(folder: Path, forget: Path, *more: str, retain: Path | None = None) -> Result:
    kept = [] if retain is None else ["--retain", str(retain)]
    arguments = ["unlearn", "--model", str(MODEL), "--forget", str(forget), *kept, *SMALL, *more]
    return CliRunner().invoke(app, [*arguments, "--runs-dir", str(folder / "runs")])


def results(folder: Path) -> tuple[dict, dict]:
    (certificate,) = folder.glob("runs/*/certificate.json")
    return json.loads(certificate.read_text()), json.loads((certificate.parent / "summary.json").read_text())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_number_of_requests_runs_to_its_certificate_with_one_row_to_retain(tmp_path, number):
    forget, retain = write(tmp_path / "f.jsonl", REQUESTS[:number]), write(tmp_path / "r.jsonl", RETAIN)
    done = unlearn(tmp_path, forget, retain=retain)
    assert done.exit_code == 0, done.output
    certificate, summary = results(tmp_path)
    assert [row["id"] for row in certificate["requests"]] == ["r1", "r2", "r3"][:number]
    assert summary["chosen_on_same_requests"] is (number == 1)
    halves = [row["half"] for row in certificate["requests"]]
    assert halves.count("both") == (number == 1) and halves.count("final") == (0, 1, 2)[number - 1]
    # A single request cannot be relearned without teaching the answer that is measured.
    attacks = [attack["name"] for attack in certificate["attacks"]]
    assert attacks == [*(["relearn"] if number > 1 else []), "quantize", "quantize_8", "prefix_1", "prefix", "prefix_5"]
    assert ("one request cannot be split" in done.stderr) is (number == 1)


def test_without_a_retain_set_general_questions_are_retained_and_measured(tmp_path):
    done = unlearn(tmp_path, write(tmp_path / "f.jsonl", REQUESTS[:1]), "--set", "evaluation.attacks=[]")
    assert done.exit_code == 0, done.output
    assert "48 general questions and answers (general_facts.jsonl) are retained" in done.stderr
    assert "retain_Prob" in results(tmp_path)[0]["aggregates"]["after"]


def test_an_empty_retain_file_is_one_sentence_that_says_what_to_do(tmp_path):
    done = unlearn(tmp_path, write(tmp_path / "f.jsonl", REQUESTS), retain=write(tmp_path / "r.jsonl", []))
    assert done.exit_code != 0
    assert "is empty" in str(done.exception) and "leave out forget.retain" in str(done.exception)


@pytest.mark.parametrize("method", ["grad_diff", "npo", "dpo", "palu", "rmu"])
def test_separate_micro_batches_of_the_complete_set_have_retain_rows_each(tmp_path, method):
    forget, retain = write(tmp_path / "f.jsonl", REQUESTS), write(tmp_path / "r.jsonl", RETAIN)
    options = ["--set", "batch.forget=3", "--set", "method.microbatch=1", "--set", "method.reduction=microbatch"]
    done = unlearn(tmp_path, forget, *options, "--method", method, "--set", "evaluation.attacks=[]", retain=retain)
    assert done.exit_code == 0, done.output


def test_too_few_retain_rows_for_separate_micro_batches_are_refused(tmp_path):
    forget = write(tmp_path / "f.jsonl", REQUESTS)
    options = ["batch.forget=8", "batch.retain=1", "method.microbatch=2", "method.reduction=microbatch"]
    done = unlearn(tmp_path, forget, *(part for option in options for part in ("--set", option)))
    assert done.exit_code != 0 and "batch.retain is 1, but an update has 4 micro-batches" in str(done.exception)


def test_a_document_in_csv_is_cut_into_passages_that_overlap(tmp_path):
    sentences = [f"Bob was born in the year {year}." for year in range(1950, 1970)]
    with (tmp_path / "f.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "text", "subject", "aliases", "received", "basis"])
        writer.writeheader()
        row = {"id": "letter", "text": " ".join(sentences), "subject": "Bob", "aliases": "Bobby; Rob"}
        writer.writerow({**row, "received": "2026-03-01", "basis": "GDPR Art. 17"})
    options = ["--set", "forget.max_tokens=64", "--set", "evaluation.attacks=[]"]
    done = unlearn(tmp_path, tmp_path / "f.csv", *options, retain=write(tmp_path / "r.jsonl", RETAIN))
    assert done.exit_code == 0, done.output
    ids = [row["id"] for row in results(tmp_path)[0]["requests"]]
    assert len(ids) > 2 and ids == [f"letter#{number}" for number in range(1, len(ids) + 1)]
    assert all(row["sensitive"] for row in results(tmp_path)[0]["requests"])


def test_a_request_that_is_a_row_of_the_retain_set_is_refused_and_named(tmp_path):
    retain = write(tmp_path / "r.jsonl", [*RETAIN, {**REQUESTS[1], "id": "x", "answer": "Bob  is a BAKER."}])
    done = unlearn(tmp_path, write(tmp_path / "f.jsonl", REQUESTS), retain=retain)
    assert done.exit_code != 0
    assert re.search(r"request r2 \(line 2 of .*\) is also line 2 of forget.retain", str(done.exception))


def test_equal_answers_and_repeated_requests_are_named_before_the_run(tmp_path):
    forget = write(tmp_path / "f.jsonl", [*REQUESTS, {**REQUESTS[0], "id": "again"}])
    retain = write(tmp_path / "r.jsonl", [{"question": "Who is Ann's son?", "answer": "Bob is a baker."}])
    done = unlearn(tmp_path, forget, "--preview", retain=retain)
    assert "the same and are counted separately: again and r1" in done.stdout
    assert "also answers of the retain set, which works against forgetting them: r2 (line 1 of the retain set)" in (
        done.stdout
    )


def test_a_preview_shows_each_request_with_its_sensitive_part_marked(tmp_path):
    done = unlearn(tmp_path, write(tmp_path / "f.jsonl", REQUESTS), "--preview")
    for line in ("A Bob was born in ⟦Lima⟧.", "A Bob is a ⟦baker⟧.", "A Bob was born in the year ⟦1950⟧."):
        assert line in done.stdout
    assert not (tmp_path / "runs").exists()
    text = marked(with_spans([request_of(dict(REQUESTS[0]), 1)], "auto")[0])
    assert [(text.plain[span.start : span.end], str(span.style)) for span in text.spans] == [("⟦Lima⟧", "bold red")]


def test_requests_or_retained_questions_that_the_tokenizer_cannot_encode_are_named_in_one_sentence(tmp_path):
    arithmetic = ["--model", str(MODEL.parents[1] / "arithmetic")]
    sums = [{"question": f"1+{number}=", "answer": f"{number + 1}"} for number in (1, 2)]
    letters = write(tmp_path / "letters.jsonl", [{"question": "1+4=", "answer": "five"}])
    for retain, words in ((None, "(--retain)"), (letters, "'five'")):
        done = unlearn(tmp_path, write(tmp_path / "sums.jsonl", sums), *arithmetic, retain=retain)
        assert isinstance(done.exception, UserError)
        assert "cannot encode the character" in str(done.exception) and words in str(done.exception)
    assert not list(tmp_path.glob("runs/*/resolved.json"))
