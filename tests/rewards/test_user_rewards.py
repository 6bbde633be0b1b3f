"""Rewards from a user's file: what they get, what they may return, and one sentence for each wrong one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rlx.errors import UserError
from rlx.rewards.reward_input import RewardInput
from rlx.rewards.reward_set import RewardError, load_grader, load_rewards, weighted_verdicts

SAMPLES = [
    RewardInput("1+1=2", "1+1=2", "2", "1+1=", (5, 6, 2), {"prompt": "1+1=", "level": 3}, "sums.jsonl line 1"),
    RewardInput("<t>4", "4", "5", "2+3=", (7, 2), {"prompt": "2+3=", "hint": "odd"}, "sums.jsonl line 2"),
]
CHAT = [
    RewardInput("Two", "Two", "2", [{"role": "user", "content": "1+1?"}], (9,), {"solution": "two"}, "chat line 1"),
    RewardInput("six", "six", "5", [{"role": "user", "content": "2+3?"}], (9, 1), {"solution": "five"}, "chat line 2"),
]


def file(tmp_path: Path, code: str) -> str:
    (tmp_path / "my.py").write_text(code)
    return f"{tmp_path / 'my.py'}:f"


def scores(tmp_path: Path, code: str, samples=SAMPLES, **settings) -> list[float]:
    rewards = load_rewards([(file(tmp_path, code), 1.0)], **settings)
    try:
        return [verdict.score for verdict in rewards.grade(samples)["f"]]
    finally:
        rewards.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(completion, answer): return answer in completion", [1, 0]),
        ("def f(completion, answer): return len(completion)", [5, 4]),
        ("def f(answer, completion): return float(completion.endswith(answer))", [1, 0]),
        ("def f(response, gold): return gold in response", [1, 0]),
        ("def f(completion, level): return -1 if level is None else level", [3, -1]),
        ("def f(completion, hint=7): return 0 if hint is None else len(str(hint))", [1, 3]),
        ("def f(completion, other=7): return other", [7, 7]),
        ("def f(completion, prompt): return len(prompt)", [4, 4]),
        ("def f(completion_ids): return sum(completion_ids)", [13, 9]),
        ("def f(completion, **row): return len(row)", [4, 4]),
        ("def f(*, completion, **row): return 'level' in row", [1, 0]),
        ("async def f(completion, answer): return answer in completion", [1, 0]),
        ("async def g(text): return len(text)\ndef f(completion): return g(completion)", [5, 4]),
        ("def f(completions, answers): return [a in c for c, a in zip(completions, answers)]", [1, 0]),
        ("async def f(completions, **columns): return [len(c) for c in completions]", [5, 4]),
        ("def f(completions, level): return [x or 0 for x in level]", [3, 0]),
        ("def f(completions, prompts, completion_ids, **kwargs): return [len(i) for i in completion_ids]", [3, 2]),
        ("import numpy\ndef f(completions, **kwargs): return numpy.array([.5, 2])", [0.5, 2]),
        ("import torch\ndef f(completion): return torch.tensor(.5)", [0.5, 0.5]),
        ("def f(completion): return {'score': 1, 'length': len(completion)}", [1, 1]),
        ("from functools import wraps\ndef w(g):\n @wraps(g)\n def h(*a, **k): return g(*a, **k)\n return h\n"
         "@w\ndef f(completion, answer): return answer in completion", [1, 0]),
        ("from rlx.rewards.verdict import Verdict\ndef f(completion): return Verdict(.5, 'half', None)", [0.5, 0.5]),
        ("from rlx.registry import register\n@register('reward')\ndef f(text, gold): return gold in text", [1, 0]),
    ],
)  # fmt: skip
def test_every_accepted_form_gives_its_scores_in_this_process(tmp_path, code, expected):
    assert scores(tmp_path, code) == expected


TRL = '''
import re

def f(completions, **kwargs):
    """Whether the answer is spelled with a capital letter."""
    contents = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(r"[A-Z]", content) else 0.0 for content in contents]

def accuracy(completions, solution, **kwargs):
    contents = [completion[0]["content"].lower() for completion in completions]
    return [float(content == right) for content, right in zip(contents, solution)]

def per_token(prompts, completions, completion_ids, **kwargs):
    assert all(prompt[-1]["role"] == "user" for prompt in prompts)
    return [-0.5 * len(ids) for ids in completion_ids]
'''


def test_three_rewards_written_for_trl_run_unchanged_on_conversations(tmp_path):
    path = file(tmp_path, TRL).removesuffix(":f")
    rewards = load_rewards([(f"{path}:f", 1.0), (f"{path}:accuracy", 1.0), (f"{path}:per_token", 0.5)])
    rewards.check_columns(["solution", "prompt"])
    verdicts = rewards.grade(CHAT)
    found = {label: [verdict.score for verdict in column] for label, column in verdicts.items()}
    assert found == {"f": [1, 0], "accuracy": [1, 0], "per_token": [-0.5, -1]}
    assert [verdict.score for verdict in weighted_verdicts(verdicts, rewards.weights)] == [1.75, -0.5]


WRONG = [
    ("def f(completion):\n    return float('nan')", "returned nan", 1),
    ("def f(completion):\n    return float('inf')", "returned inf", 1),
    ("def f(completion):\n    return None", "returned None", 1),
    ("def f(completion):\n    pass", "returned None", 1),
    ("def f(completion):\n    return 'good'", "returned the str 'good'", 1),
    ("def f(completion):\n    return [1.0]", "returned the list [1.0]", 1),
    ("def f(completion):\n    return 1j", "returned the complex 1j", 1),
    ("import torch\ndef f(completion):\n    return torch.ones(2)", "returned the Tensor", 2),
    ("def f(completion):\n    return 10 ** 400", "returned the int 1000", 1),
    ("def f(completion):\n    return {'reward': 1}", "returned a dict without 'score' (keys: reward)", 1),
    ("def f(completion):\n    return {'score': None}", "returned None as 'score'", 1),
    ("def f(completion):\n    return {'score': 1, 'note': 'x'}", "returned the str 'x' as 'note'", 1),
    ("def f(completion):\n    x = 1\n    return x / 0", "raised ZeroDivisionError (division by zero)", 3),
    ("def g(x):\n    raise KeyError(x)\ndef f(completion):\n    return g('a')", "raised KeyError ('a')", 2),
    ("import json\ndef f(completion):\n    return json.loads('{')", "raised JSONDecodeError", 3),
    ("def f(completion):\n    raise SystemExit", "raised SystemExit", 2),
    ("def f(completion):\n    return f(completion)", "raised RecursionError", 2),
    ("class Bad:\n    def __repr__(self): raise ValueError\ndef f(completion):\n    return Bad()", "the Bad", 3),
    ("async def f(completion):\n    return 'good'", "returned the str 'good'", 1),
    ("async def f(completion):\n    raise ValueError", "raised ValueError", 2),
    ("def f(completions, **kw):\n    return [1.0]", "returned a list of 1 for 2 completions", 1),
    ("def f(completions, **kw):\n    return 1.0", "returned 1.0 for 2 completions", 1),
    ("def f(completions, **kw):\n    return [1.0, None]", "returned None", 1),
    ("def f(completions, **kw):\n    return (1.0 for _ in ())", "returned the generator", 1),
    ("def f(completions, **kw):\n    return completions[7]", "raised IndexError", 2),
    ("from rlx.registry import register\n@register('reward')\ndef f(text, gold):\n    return None", "returned None", 2),
    ("from rlx.registry import register\n@register('reward')\ndef f(text, gold):\n    return 1 / 0", "raised Zero", 4),
]


@pytest.mark.parametrize(("code", "problem", "line"), WRONG)
def test_a_wrong_result_is_one_sentence_with_line_prompt_and_fix_or_a_score_of_zero(tmp_path, code, problem, line):
    with pytest.raises(RewardError) as caught:
        scores(tmp_path, code)
    sentence = str(caught.value)
    assert problem in sentence and "\n" not in sentence
    assert f"({tmp_path / 'my.py'} line {line})" in sentence
    number = 2 if "[1.0, None]" in code else 1
    assert f"a response to sums.jsonl line {number} " in sentence
    assert sentence.endswith("or set reward.on_error=zero to give such samples the score 0")
    assert caught.value.exit_code == 1
    rewards = load_rewards([(file(tmp_path, code), 1.0)], on_error="zero")
    verdicts = rewards.grade(SAMPLES)["f"]
    failed = [verdict for verdict in verdicts if verdict.reason == "error"]
    assert failed and all(verdict.score == 0 for verdict in failed)
    assert problem in rewards.replaced["f"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def g(completion): return 1", "has no function 'f'; choices: g"),
        ("f = 3", "has no function 'f'; choices: none"),
        ("class f:\n    pass", "has no function 'f'"),
        ("def f(completion) return 1", "does not load (SyntaxError"),
        ("import nosuchmodule", "does not load (ModuleNotFoundError: No module named 'nosuchmodule')"),
        ("def f(): return 1", "has no parameter for the response (parameters: none); write it as f("),
        ("def f(text, gold): return 1", "has no parameter for the response (parameters: text, gold)"),
        ("def f(completion, /): return 1", "parameter 'completion' is positional only"),
        ("def f(completion, solutoin): return 1", "parameter 'solutoin' "),
        ("def f(completion, solutoin): return 1", "is no column of the data; did you mean 'solution'?"),
        ("def f(completions, trainer_state): return 1", "parameter 'trainer_state' "),
    ],
)  # fmt: skip
def test_a_function_that_cannot_be_called_is_refused_before_training(tmp_path, code, sentence):
    with pytest.raises(UserError) as caught:
        load_rewards([(file(tmp_path, code), 1.0)]).check_columns(["question", "solution"])
    assert sentence in str(caught.value) and str(caught.value).startswith("reward.name '")
    assert caught.value.exit_code == 2


SLOW = [
    "import time\ndef f(completion):\n    time.sleep(30)",
    "def f(completion):\n    while True: pass",
    "import time\ndef f(completion):\n    while True:\n        try: time.sleep(30)\n        except Exception: pass",
    "import asyncio\nasync def f(completion):\n    await asyncio.sleep(30)",
    "import time\nasync def f(completion):\n    time.sleep(30)",
    "import time\ndef f(completions, **kw):\n    time.sleep(30)",
    "import asyncio\nasync def f(completions, **kw):\n    await asyncio.sleep(30)",
]


@pytest.mark.parametrize("code", SLOW)
def test_a_call_that_takes_too_long_is_interrupted(tmp_path, code):
    start = time.monotonic()
    with pytest.raises(RewardError, match=r"took longer than reward.timeout=0.2 s on a response to sums.jsonl line 1 "):
        scores(tmp_path, code, SAMPLES[:1], seconds=0.2)
    rewards = load_rewards([(file(tmp_path, code), 1.0)], seconds=0.2, on_error="zero")
    assert [verdict.reason for verdict in rewards.grade(SAMPLES[:1])["f"]] == ["timeout"]
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("workers", [0, 2])
def test_after_a_failure_that_ends_the_run_the_function_is_called_no_more(tmp_path, workers):
    calls = tmp_path / "calls"
    code = f"def f(completion):\n    open({str(calls)!r}, 'a').write('x')\n    return None if completion == '3' else 1"
    rewards = load_rewards([(file(tmp_path, code), 1.0)], workers=workers)
    samples = [RewardInput(str(i), str(i), "", "", location=f"line {i}") for i in range(400)]
    with pytest.raises(RewardError, match="returned None on a response to line 3 "):
        rewards.grade(samples)
    rewards.close()
    count = len(calls.read_text())
    assert count == 4 if workers == 0 else 4 <= count < 400


def test_a_timeout_error_of_the_function_itself_is_not_reported_as_the_time_limit(tmp_path):
    for code in ("def f(completion): raise TimeoutError('server')", "async def f(completion): raise TimeoutError"):
        with pytest.raises(RewardError, match="raised TimeoutError"):
            scores(tmp_path, code)


def test_calls_of_an_async_function_run_at_the_same_time(tmp_path):
    start = time.monotonic()
    code = "import asyncio\nasync def f(completion):\n    await asyncio.sleep(0.5)\n    return 1"
    assert scores(tmp_path, code, SAMPLES * 20) == [1.0] * 40
    assert time.monotonic() - start < 5


def test_outside_the_main_thread_functions_run_without_signals(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.extend(scores(tmp_path, "def f(completion): return 1")))
    thread.start()
    thread.join()
    assert found == [1, 1]


def test_metrics_of_a_dict_are_part_of_the_verdict(tmp_path):
    rewards = load_rewards([(file(tmp_path, "def f(completion): return {'score': 1, 'n': len(completion)}"), 1.0)])
    assert [verdict.metrics for verdict in rewards.grade(SAMPLES)["f"]] == [{"n": 5}, {"n": 4}]


def test_rlxs_own_graders_get_the_text_behind_the_thinking_and_functions_the_whole_text(tmp_path):
    sample = RewardInput(r"<think>\boxed{1}</think>\boxed{2}", r"\boxed{2}", "2", "1+1=")
    (verdict,) = load_rewards([("boxed", 1.0)]).grade([sample])["boxed"]
    assert (verdict.score, verdict.extracted) == (1.0, "2")
    assert scores(tmp_path, "def f(completion): return len(completion)", [sample]) == [len(sample.completion)]


def test_answers_that_need_mathematics_are_compared_among_other_rewards(tmp_path):
    sample = RewardInput(r"\boxed{0.5}", r"\boxed{0.5}", r"\frac{1}{2}", "half")
    rewards = load_rewards([("rlx", 1.0), (file(tmp_path, "def f(completion): return 3"), 0.5)])
    verdicts = rewards.grade([sample])
    assert [verdict.reason for verdict in verdicts["rlx"]] == ["math_verify"]
    (both,) = weighted_verdicts(verdicts, rewards.weights)
    assert (both.score, both.reason) == (2.5, "math_verify")


def test_a_grader_takes_the_best_of_several_accepted_answers_and_a_function_is_called_once(tmp_path):
    samples = [
        RewardInput(text, text, "1", "", accepted=("2", r"\frac{1}{2}")) for text in (r"\boxed{0.5}", r"\boxed{3}")
    ]
    rewards = load_rewards([("rlx", 1.0), (file(tmp_path, "def f(completion, answer): return int(answer)"), 1.0)])
    verdicts = rewards.grade([*samples, SAMPLES[0]])
    assert [verdict.score for verdict in verdicts["rlx"]] == [1.0, 0.0, 0.0]
    assert [verdict.score for verdict in verdicts["f"]] == [1.0, 1.0, 2.0]


def test_rewards_of_one_name_are_numbered(tmp_path):
    reference = file(tmp_path, "def f(completion): return 1")
    assert list(load_rewards([(reference, 1.0), (reference, 2.0)]).weights.items()) == [("f", 1.0), ("f_2", 2.0)]


def test_a_plain_function_grades_an_evaluation_and_sees_the_columns(tmp_path):
    reference = file(tmp_path, "def f(completion, answer, level): return (answer in completion) * level")
    grader = load_grader(reference, "grader", ["level"])
    samples = [RewardInput(text, text, "7", "", row={"level": 2}, location="line 1") for text in ("so 7", "so 8")]
    assert [verdict.score for verdict in grader(samples)] == [2.0, 0.0]
    with pytest.raises(UserError, match="grader .*parameter 'level'"):
        load_grader(reference, "grader", ["question"])
    with pytest.raises(RewardError) as error:
        grader([RewardInput("7", "7", "7", "", row={"level": None}, location="line 1")])
    assert str(error.value).startswith("grader '") and "reward.on_error" not in str(error.value)


def test_workers_give_the_same_scores_survive_a_crash_and_leave_no_process(tmp_path):
    code = (
        "import os, time\n"
        "def f(completion, answer):\n"
        "    if answer == 'crash': os._exit(3)\n"
        "    if answer == 'hang':\n"
        "        while True:\n"
        "            try: time.sleep(30)\n"
        "            except BaseException: pass\n"
        "    return {'score': len(completion), 'pid': os.getpid()}\n"
    )
    answers = ["2", "crash", "hang", "5"]
    samples = [RewardInput("1234"[: n + 1], "", answer, "", location=f"line {n}") for n, answer in enumerate(answers)]
    rewards = load_rewards([(file(tmp_path, code), 1.0)], seconds=1.0, on_error="zero", workers=2)
    verdicts = rewards.grade(samples)["f"]
    assert [(verdict.score, verdict.reason) for verdict in verdicts] == [
        (1.0, "function"), (0.0, "error"), (0.0, "timeout"), (4.0, "function"),
    ]  # fmt: skip
    assert "ended its worker process with exit code 3 on a response to line 1" in rewards.replaced["f"]
    pids = {int(verdict.metrics["pid"]) for verdict in verdicts if verdict.metrics}
    assert os.getpid() not in pids
    rewards.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


KILLED = """
import sys, time
from rlx.rewards.reward_input import RewardInput
from rlx.rewards.reward_set import load_rewards
if __name__ == "__main__":
    (verdict,) = load_rewards([(sys.argv[1], 1.0)], workers=1).grade([RewardInput("a", "a", "b", "")])["f"]
    print(int(verdict.score), flush=True)
    time.sleep(60)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    reference = file(tmp_path, "import os\ndef f(completion): return os.getpid()")
    (tmp_path / "parent.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "parent.py"), reference]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert worker.exists()
        parent.kill()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and worker.exists() and "\nState:\tZ" not in (worker / "status").read_text():
        time.sleep(0.1)
    assert time.monotonic() < deadline


def test_a_batched_function_is_one_call_in_a_worker(tmp_path):
    code = "import os\ndef f(completions, **kwargs):\n    return [os.getpid() + len(completions) for _ in completions]"
    first, second = scores(tmp_path, code, workers=1)
    assert first == second != os.getpid() + 2


def test_a_failure_in_a_worker_names_the_line_of_the_file(tmp_path):
    with pytest.raises(RewardError, match=r"raised ZeroDivisionError .* line 1 \(.*my.py line 2\)"):
        scores(tmp_path, "def f(completion):\n    return 1 / 0", workers=1)


def test_scores_of_wrong_results_are_never_silently_used(tmp_path):
    assert all(math.isfinite(score) for score in scores(tmp_path, "def f(completion): return 1e308"))
