"""Every named grader, the judged pairs, and answers that attack the grader."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlx.registry import get, names
from rlx.rewards.by_text import canonical
from rlx.rewards.grade import grade
from rlx.rewards.rlx import rlx
from rlx.rewards.symbolic_pool import SymbolicPool
from rlx.rewards.verdict import NeedsSymbolicCheck

DATA = Path("../shared/data/grading")
TABLE = Path(__file__).parent / "verdicts_pairs.json"
LIMIT = 1.0

CASES = [
    ("rlx", "\\boxed{\\frac12}", "0.5", 1.0, "math_verify"),
    ("rlx", "\\boxed{\\frac13}", "0.3333", 0.0, "math_verify"),
    ("rlx", "\\boxed{2}", "\\frac{4}{2}", 1.0, "math_verify"),
    ("rlx", "\\boxed{3 \\mp 2}", "1, 5", 1.0, "math_verify"),
    ("rlx", "\\boxed{10^{-30}}", "10^{-31}", 0.0, "math_verify"),
    ("rlx", "\\boxed{50\\%}", "\\frac12", 1.0, "math_verify"),
    ("rlx", "\\boxed{100\\%}", "1", 1.0, "math_verify"),
    ("rlx", "\\boxed{17_9}", "17_8", 0.0, "exact"),
    ("rlx", "\\boxed{1:00}", "12:00", 0.0, "math_verify"),
    ("rlx", "\\boxed{17}", "16", 0.0, "int"),
    ("rlx", "\\boxed{}", "16", 0.0, "empty"),
    ("rlx", "the answer is 16", "16", 0.0, "no_box"),
    ("rlx", "<think>\\boxed{16}</think> so it is", "16", 0.0, "no_box"),
    ("rlx", "\\boxed{x}", "$", 0.0, "gold_unparseable"),
    ("math_verify", "so $x = \\frac{1}{2}$.", "0.5", 1.0, "math_verify"),
    ("math_verify", "", "0.5", 0.0, "empty"),
    ("answer_line", "hm\nAnswer: 7", "7", 1.0, "exact"),
    ("answer_line", "Answer: 6\n**Answer: $\\frac{14}{2}$**", "7", 1.0, "math_verify"),
    ("answer_line", "the answer: is 7", "7", 0.0, "no_answer"),
    ("gsm8k_hash", "#### 1,234", "1234", 1.0, "int"),
    ("gsm8k_hash", "\\boxed{1234}", "1234", 0.0, "no_answer"),
    ("gsm8k_hash", "#### 12", "#### 13", 0.0, "int"),
    ("integer", "first 3, then 1,204 apples", "1204", 1.0, "int"),
    ("integer", "3.5 apples", "5", 0.0, "no_answer"),
    ("integer", "12 or \\boxed{13}", "12", 0.0, "int"),
    ("integer", "12", "a dozen", 0.0, "gold_unparseable"),
]


@pytest.fixture(scope="module")
def pool():
    pool = SymbolicPool(seconds=20.0, workers=1)
    yield pool
    pool.close()


@pytest.mark.parametrize(("name", "response", "gold", "score", "reason"), CASES)
def test_a_grader_says_what_was_judged_by_hand(name, response, gold, score, reason, pool):
    (verdict,) = grade(get("reward", name).fn, [(response, gold)], pool)
    assert (verdict.score, verdict.reason) == (score, reason)


def test_every_named_grader_has_a_case():
    assert {name for name, *_ in CASES} | {"boxed", "arithmetic"} == set(names("reward"))


def test_answers_that_mean_the_same_vote_together():
    assert canonical("\\frac{1}{2}") == canonical("0.50") == canonical("1/2") == canonical("\\dfrac12") == "1/2"
    assert canonical("1,204") == canonical("1204.0") == canonical("$1204$") == "1204"
    assert canonical("-\\frac{4}{2}") == "-2"
    assert canonical("\\frac{1}{0}") == "\\frac{1}{0}"
    assert canonical("Evelyn") == canonical("\\text{evelyn}")
    assert canonical("") is None and canonical(None) is None


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not on this machine")
def test_the_verdict_table_of_the_judged_pairs_stands_and_agrees_with_92_percent_of_the_judgements(pool):
    lines = (DATA / "pairs.jsonl").read_text().splitlines()
    table = json.loads(TABLE.read_text())["rows"]
    assert [row["sha256"] for row in table] == [hashlib.sha256(line.encode()).hexdigest()[:16] for line in lines]
    pairs = [json.loads(line) for line in lines]
    verdicts = grade(rlx, [(pair["response"], pair["gold"]) for pair in pairs], pool)
    assert [(v.score, v.reason) for v in verdicts] == [(row["score"], row["reason"]) for row in table]
    agrees = [bool(v.score) == pair["expected"] for v, pair in zip(verdicts, pairs, strict=True)]
    assert agrees == [row["agrees"] for row in table]
    assert all(row["agrees"] or row["why"] for row in table)
    without_a_box = [v.reason == "no_box" and not v.score for v in verdicts]
    assert sum(a or b for a, b in zip(agrees, without_a_box, strict=True)) / len(agrees) >= 0.92


def attacks():
    """Answers in the manner of the hostile ones seen elsewhere, at full length."""
    return [
        "9^{9^{9^{9}}}",
        "1000000000!",
        "(x+y+z+1)^{60}",
        "\\binom{1000000000}{500000000}",
        "\\sum_{k=1}^{100000} k^k",
        "\\log_{2}(\\log_{2}(2^{2^{100}}))",
        "{" * 5000 + "1" + "}" * 5000,
        "(" * 2000 + "x" + ")" * 2000,
        "(" * 200 + "x" + ")" * 200,
        "\\frac{1}{1+" * 200 + "x" + "}" * 200,
        "\\sqrt{2+" * 40 + "2" + "}" * 40,
        "7" * 20000,
        "+".join(str(n) for n in range(2000)),
        ",".join(str(n) for n in range(2000)),
        "\\text{" + "the answer is banana " * 250 + "}",
        "__import__('os').system('touch grader_was_here')",
        "\\boxed{" * 2000,
    ]


def test_hostile_answers_are_settled_in_time_and_ordinary_ones_around_them_are_unaffected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool = SymbolicPool(seconds=LIMIT, memory=512 << 20, workers=2)
    ordinary = [
        (f"\\boxed{{\\frac{{{n}}}{{7}}+\\sqrt{{2}}}}", f"\\sqrt{{2}}+\\frac{{{2 * n}}}{{14}}") for n in range(200)
    ]
    grade(rlx, [("\\boxed{x+1}", "1+x")], pool)  # the first question starts the workers
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hostile = [(f"\\boxed{{{attack}}}", "16") for attack in attacks()]
    mixed = ordinary[:100] + hostile + ordinary[100:]
    start = time.monotonic()
    verdicts = grade(rlx, mixed, pool)
    seconds = time.monotonic() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    pool.close()
    fair = verdicts[:100] + verdicts[100 + len(hostile) :]
    assert all(v.score == 1.0 and v.reason in ("math_verify", "timeout") for v in fair if v.reason != "timeout")
    # A loaded machine may cost an honest answer its second; more than that would be the hostile ones' doing.
    assert sum(v.reason == "timeout" for v in fair) <= 2
    attacked = verdicts[100 : 100 + len(hostile)]
    assert not any(v.score for v in attacked)
    assert {v.reason for v in attacked} <= {"timeout", "error", "math_verify", "int", "no_box", "empty"}
    assert sum(v.reason == "timeout" for v in attacked) >= 3
    assert seconds < len(hostile) * (LIMIT + 1) / 2 + 30
    assert grown < 200 * 1024
    assert not (tmp_path / "grader_was_here").exists()


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not on this machine")
def test_each_known_hostile_answer_is_settled_within_its_limit_and_a_second():
    pool = SymbolicPool(seconds=LIMIT, workers=1)
    grade(rlx, [("\\boxed{x+1}", "1+x")], pool)
    for line in (DATA / "hostile.jsonl").read_text().splitlines():
        row = json.loads(line)
        start = time.monotonic()
        (verdict,) = grade(rlx, [(row["response"], row["gold"])], pool)
        assert time.monotonic() - start < LIMIT + 1, row["name"]
        assert verdict.score == 0.0, row["name"]
    pool.close()


def test_a_question_is_asked_once(pool):
    question = NeedsSymbolicCheck("\\boxed{2^{9999999}}", "\\boxed{2^{9999998}}", "2^{9999998}")
    first = pool.compare([question, question])
    start = time.monotonic()
    assert pool.compare([question] * 1000)[999] is first[1]
    assert time.monotonic() - start < 0.1


def test_text_decides_twenty_thousand_answers_a_second():
    pairs = [(f"Working. So it is \\boxed{{{n}}}.", str(n % 7)) for n in range(10_000)]
    start = time.process_time()
    verdicts = grade(rlx, pairs)
    assert sum(v.score for v in verdicts) == 7
    assert len(pairs) / (time.process_time() - start) > 20_000


CHILD = """
import os, sys
from rlx.rewards.symbolic_pool import SymbolicPool
from rlx.rewards.verdict import NeedsSymbolicCheck
if __name__ == "__main__":
    pool = SymbolicPool(seconds=2.0, workers=1)
    pool.compare([NeedsSymbolicCheck("\\\\boxed{x+1}", "\\\\boxed{1+x}", "")])
    print(*pool._pool._pool_manager.worker_manager.workers, flush=True)
    pool.compare([NeedsSymbolicCheck("\\\\boxed{1}", "\\\\boxed{9^{9^{9^9}}}", "")])
"""


def test_workers_die_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        (worker,) = (int(pid) for pid in parent.stdout.readline().split())
        time.sleep(1.0)
        parent.kill()
    deadline = time.monotonic() + 10
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _runs(worker)


def _runs(pid):
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
