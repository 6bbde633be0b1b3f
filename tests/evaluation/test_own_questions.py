"""Questions of one's own as a benchmark (rlx eval --data), and problem ids that repeat, change or swap."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rlx.benchmarks.benchmark import Problem, distinct_ids, sequence_hash
from rlx.cli.app import app
from rlx.compare.load.folders import read_run, run_results
from rlx.errors import UserError
from rlx.evaluation.problems import load_problems, problem_sets
from rlx.evaluation.run import run_eval
from rlx.registry import get, names
from rlx.rl.run import run as train_run
from rlx.runs.folder import EvalDir, RunDir
from rlx.runs.locate import locator
from rlx.runs.samples import write_samples
from rlx.specs.evaluate import EvalSpec, Protocol
from rlx.specs.resolve_evaluate import resolve_eval
from rlx.specs.resolve_train import resolve

BENCH = Path("../shared/data/bench")
OPTIONS = ["--prompt", "{problem}", "--n", "2", "--max-new-tokens", "24", "--set", "mlflow=false"]


def questions(number=20, an_id=lambda i: f"q{i}"):
    return [{"id": an_id(i), "prompt": f"{10 + i}+{20 + i}=", "answer": 30 + 2 * i} for i in range(number)]


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rlx_eval(path: Path, runs: Path, *more: str):
    result = CliRunner().invoke(app, ["eval", "--data", str(path), *OPTIONS, "--runs-dir", str(runs), *more])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def evaluations(runs: Path) -> list[EvalDir]:
    return [EvalDir(path) for path in sorted(runs.glob("*/evaluations/*/*"), key=lambda path: path.stat().st_mtime_ns)]


def rows_of(folder: EvalDir):
    return [row for part in folder.parts() for row in pq.read_table(part).to_pylist()]


def test_problems_that_share_an_id_are_all_measured_with_their_own_seeds_and_a_notice(tmp_path):
    path = write(tmp_path / "shared.jsonl", questions(an_id=lambda i: f"q{i // 2}"))
    done = rlx_eval(path, tmp_path / "runs", "--grader", "arithmetic", "--format", "json")
    (entry,) = json.loads(done.stdout)["benchmarks"]
    assert (entry["summary"]["problems"], entry["summary"]["n"]) == (20, 2)
    assert "data_shared: 10 of 20 problems repeat an id; they get ids of their own, such as q0#2" in done.stderr
    (folder,) = evaluations(tmp_path / "runs")
    rows = rows_of(folder)
    assert len({row["problem_id"] for row in rows}) == 20 and len({row["seed"] for row in rows}) == 40
    golds = {(row["problem_id"], row["gold"]) for row in rows}
    assert {("q0", "30"), ("q0#2", "32"), ("q9#2", "68")} < golds and len(golds) == 20


def test_distinct_ids_stay_and_a_new_id_is_never_one_that_another_problem_has():
    problems = [Problem(name, "?", "1") for name in ("a", "a", "a#2", "b", "a")]
    distinct, changed = distinct_ids(problems)
    assert [problem.id for problem in distinct] == ["a", "a#3", "a#2", "b", "a#4"]
    assert changed == 2


def test_the_same_rows_under_other_ids_or_in_another_order_are_other_evaluations(tmp_path):
    rows = questions(6)
    runs = tmp_path / "runs"
    path = tmp_path / "mine.jsonl"
    for number, variant in enumerate(([*rows], [{**row, "id": f"other{row['id']}"} for row in rows], rows[::-1]), 1):
        write(path, variant)
        assert rlx_eval(path, runs, "--grader", "arithmetic", "--limit", "4").exit_code == 0
        folders = evaluations(runs)
        assert len(folders) == number
        assert {row["problem_id"] for row in rows_of(folders[-1])} == {row["id"] for row in variant[:4]}


def test_the_same_rows_again_sample_nothing_and_cut_off_ones_are_completed(tmp_path):
    path = write(tmp_path / "mine.jsonl", questions(8, an_id=lambda i: f"q{i // 2}"))
    runs = tmp_path / "runs"
    rlx_eval(path, runs, "--grader", "arithmetic", "--set", "batch=4")
    (folder,) = evaluations(runs)
    expected = {(row["problem_id"], row["sample"]): row["response"] for row in rows_of(folder)}
    folder.parts()[1].unlink()
    folder.result.unlink()
    before = {part: part.stat().st_mtime_ns for part in folder.parts()}
    rlx_eval(path, runs, "--grader", "arithmetic", "--set", "batch=4")
    assert {part: part.stat().st_mtime_ns for part in before} == before
    assert len(rows_of(folder)) == 16
    assert {(row["problem_id"], row["sample"]): row["response"] for row in rows_of(folder)} == expected


def test_stored_samples_of_other_problems_are_refused_in_one_sentence(tmp_path):
    path = write(tmp_path / "mine.jsonl", questions(4))
    runs = tmp_path / "runs"
    rlx_eval(path, runs, "--grader", "arithmetic")
    (folder,) = evaluations(runs)
    (part,) = folder.parts()
    table = pq.read_table(part).to_pylist()
    table[0]["problem_id"] = "another"
    write_samples(table, part)
    with pytest.raises(UserError, match="holds samples of other problems, such as 'another'.*move that folder away"):
        rlx_eval(path, runs, "--grader", "arithmetic")


def test_regrading_and_processes_work_on_ones_own_questions(tmp_path):
    path = write(tmp_path / "mine.jsonl", questions(6))
    runs = tmp_path / "runs"
    rlx_eval(path, runs, "--grader", "arithmetic", "--processes", "2")
    (folder,) = evaluations(runs)
    alone = tmp_path / "alone"
    rlx_eval(path, alone, "--grader", "arithmetic")
    (other,) = evaluations(alone)
    by_sample = {(row["problem_id"], row["sample"]): row["response"] for row in rows_of(other)}
    assert {(row["problem_id"], row["sample"]): row["response"] for row in rows_of(folder)} == by_sample
    grader = tmp_path / "grader.py"
    code = (
        "from rlx.registry import register\nfrom rlx.rewards.verdict import Verdict\n"
        "@register('reward')\ndef constant(response, gold):\n    return Verdict(VALUE, 'constant', None)\n"
    )
    scores = []
    for value in ("1.0", "0.0"):
        grader.write_text(code.replace("VALUE", value))
        done = rlx_eval(path, runs, "--grader", f"{grader}:constant", "--regrade", "--format", "json")
        scores.append(json.loads(done.stdout)["benchmarks"][0]["summary"]["average"]["value"])
    assert scores == [1.0, 0.0], "an edited grader is another protocol"
    assert len(evaluations(runs)) == 3


def test_prompt_grader_and_columns_are_part_of_the_protocol_and_a_hash_of_the_rows(tmp_path):
    rows = [{"q": {"text": "1+1="}, "gold": "so #### 1,002"}, {"q": {"text": "1+2="}, "gold": "#### 3"}]
    path = write(tmp_path / "mine.jsonl", rows)
    keys = {"source": str(path), "prompt": "q.text", "answer": "gold", "answer_format": "gsm8k_hash"}
    (own,) = problem_sets(EvalSpec(model="embedded", data=keys))
    assert [(p.id, p.text, p.gold) for p in own.problems] == [
        ("data_mine-0000", "1+1=", "1002"),
        ("data_mine-0001", "1+2=", "3"),
    ]
    content = {"model": "embedded", "data": keys, "n": 1, "max_new_tokens": 8, "mlflow": False}
    digests = set()
    for change in ({"prompt": "{problem}"}, {"prompt": "{problem} "}, {"prompt": "{problem}", "grader": "integer"}):
        (outcome,) = run_eval(resolve_eval({**content, **change}, locator(tmp_path / "runs")))
        assert outcome.protocol.benchmark == "data_mine" and outcome.protocol.prompt == change["prompt"]
        digests.add(outcome.protocol.digest)
    assert len(digests) == 3


def test_compare_reads_the_results_and_tells_sets_with_other_ids_apart(tmp_path):
    content = {"steps": 1, "batch": {"prompts": 4, "updates_per_rollout": 1}, "rollout": {"samples_per_prompt": 2}}
    content |= {"evaluation": {"every": 0}, "tracker": {"mlflow": False}}
    resolved = resolve(content)
    run = RunDir(tmp_path / resolved.run_id)
    assert train_run(resolved, content, run) == 0
    path = write(tmp_path / "mine.jsonl", questions(5, an_id=lambda i: "same"))
    evaluation = {"model": resolved.run_id, "data": {"source": str(path)}, "n": 2, "mlflow": False}
    evaluation |= {"prompt": "{problem}", "grader": "arithmetic", "max_new_tokens": 24}
    assert run_eval(resolve_eval(evaluation, locator(tmp_path)))
    (result,) = run_results([read_run(run)], lambda protocol: protocol["benchmark"] == "data_mine")
    (scores,) = result.scores
    assert scores.problem_ids == ("same", "same#2", "same#3", "same#4", "same#5") and scores.scores_pn.shape == (5, 2)


def test_protocols_of_reviewed_rows_keep_their_digest():
    protocol = Protocol(
        benchmark="arithmetic", problems=500, data_sha256="29", prompt="{problem}", system=None, chat_template="none",
        n=1, temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=24, stop=("<eos>",), seed=0, grader="arithmetic",
        grader_version="1", engine="hf", engine_version="transformers 5", dtype="float32",
    )  # fmt: skip
    assert protocol.digest == "2a5cb04f", "as before the key sequence_sha256 existed"
    assert "sequence_sha256" not in protocol.record()
    other = protocol.model_copy(update={"sequence_sha256": "1f"})
    assert other.digest != protocol.digest and other.record()["sequence_sha256"] == "1f"
    assert not other.same_responses(protocol)


@pytest.mark.parametrize("name", names("benchmark"))
def test_the_reviewed_sequence_is_recorded(name):
    if name != "arithmetic" and not BENCH.is_dir():
        pytest.skip("needs the benchmarks' files")
    problems, _ = load_problems(name, None if name == "arithmetic" else str(BENCH))
    assert get("benchmark", name).fn().sequence == sequence_hash(problems)


GOOD = {"prompt": "1+1=", "answer": "2"}


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (None, [], r"there is no data file .*mine.jsonl; give the path"),
        ("", [], r"data.source '.*mine.jsonl' has no row; give one question"),
        ("\n\n", [], r"data.source '.*mine.jsonl' has no row"),
        ([{"prompt": "1+1=", "answer": []}], [], r"line 1: the column data.answer names holds \[\];"),
        (
            [GOOD, {"prompt": "1+1=", "answer": None}],
            [],
            r"line 2: the column data.answer names holds None; it must",
        ),
        ([{"prompt": "1+1=", "answer": True}], [], r"line 1: the column data.answer names holds True"),
        (
            [{"prompt": "1+1=", "answer": {"value": 2}}],
            [],
            r"line 1: the column data.answer names holds \{'value'",
        ),
        ([{"prompt": "1+1=", "answer": " "}], [], r"line 1: the column data.answer names holds ' '"),
        ([{"prompt": "1+1=", "answer": float("nan")}], [], r"line 1: the column data.answer names holds nan"),
        ([{"prompt": ["1+1="], "answer": "2"}], [], r"line 1: the column data.prompt names holds \['1\+1='\]"),
        ([{"prompt": "", "answer": "2"}], [], r"line 1: the column data.prompt names holds ''"),
        (
            [{"text": "1+1=", "answer": "2"}],
            [],
            r"data.prompt is 'prompt', and .*line 1 has no such column;",
        ),
        ([{"prompt": "1+1="}], [], r"data.answer is 'answer', and .*line 1 has no such column"),
        ([GOOD], ["--set", "data.answer=gold"], r"data.answer is 'gold', and .*line 1 has no such column"),
        ([GOOD], ["--set", "data.answer_format=gsm8k_hash"], r"line 1: the answer has no '#### ...'.*choices"),
        ([GOOD], ["--set", "data.answer_format=boxed"], r"data.answer_format is 'boxed'.*did you mean 'last_boxed'"),
        ([GOOD], ["--set", "data.colum=x"], r"unknown key data.colum; choices"),
        ([GOOD], ["--prompt", "solve it"], r"prompt is 'solve it'"),
        ([GOOD], ["--grader", "arithmetik"], r"grader 'arithmetik' is not a known reward; did you mean 'arithmetic'"),
        ([GOOD], ["--check-benchmarks"], r"--check-benchmarks does not read --data; use --data FILE --preview"),
        ('{"prompt": "1+1=", "answer": 2}\n{"prompt": ', [], r"line 2 is not JSON .*write one JSON object a line"),
        ("[1, 2]\n", [], r"line 1 is a list, not an object"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence_with_its_line_and_nothing_is_written(
    content, options, sentence, tmp_path
):
    path = tmp_path / "mine.jsonl"
    if content is not None:
        path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
    with pytest.raises(UserError) as error:
        rlx_eval(path, tmp_path / "runs", *options)
    assert re.search(sentence, str(error.value)) and "\n" not in str(error.value)
    assert error.value.exit_code != 0 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "benchmark aime24 has no usable row"),
        ('{"problem": "1+1=", "answer": null}', "line 1: the column benchmark aime24 names holds None"),
        ('{"problem": "1+1=", "answer": [{}]}', "line 1: the column benchmark aime24 names holds {}"),
        ('{"problem": null, "answer": "1"}', "line 1: the column benchmark aime24 names holds None"),
    ],
)
def test_a_benchmarks_file_with_an_unreadable_row_is_refused(content, sentence, tmp_path):
    (tmp_path / "aime24.jsonl").write_text(content)
    with pytest.raises(UserError) as error:
        load_problems("aime24", str(tmp_path), unpinned=True)
    assert sentence in str(error.value)
