"""``rlx eval --preview``: the problems, prompts and grader of an evaluation, without weights; writes nothing."""

from __future__ import annotations

from rlx.console import print_out
from rlx.data.preview import print_gold_checks, print_lengths, print_problems, print_prompts
from rlx.engine.memory import GIB
from rlx.engine.skeleton import load_skeleton
from rlx.evaluation.build import Candidate, measurement
from rlx.evaluation.grading import inputs_of_problems
from rlx.evaluation.problems import ProblemSet, problem_sets
from rlx.rewards.gold_check import check_gold
from rlx.specs.evaluate import ResolvedEval


def preview_eval(resolved: ResolvedEval, processes: int) -> int:
    """Print what an evaluation would read and sample.

    Args:
        resolved: the evaluation.
        processes: number of processes that share the problems.

    Returns:
        The exit code: 1 if something is wrong, such as a grader that does not accept the gold answer.

    Raises:
        UserError: what the evaluation would raise for its data, model or tokenizer.
    """
    sets = problem_sets(resolved.spec)
    candidate = Candidate(resolved)
    print_out(f"preview of {resolved.spec.model} ({resolved.checkpoint}): no weights are loaded and nothing is written")
    problems = [sentence for problem_set in sets for sentence in _print_set(problem_set, candidate)]
    skeleton = load_skeleton(resolved.model_folder, candidate.model)
    if skeleton is not None:
        parameters = sum(parameter.numel() for parameter in skeleton.parameters())
        value_bytes = 2 if candidate.dtype == "bfloat16" else 4
        where = "" if processes == 1 else f" in each of {processes} processes"
        print_out(
            f"\nmemory: the weights of {parameters:,} parameters take {parameters * value_bytes / GIB:.2f} GiB in "
            f"{candidate.dtype}{where}; the cache of keys and values is not included"
        )
    print_out("time: not estimated, because it depends on the lengths of the responses")
    return print_problems(problems)


def _print_set(problem_set: ProblemSet, candidate: Candidate) -> list[str]:
    """Print one benchmark; returns what is wrong, as sentences."""
    measured = measurement(problem_set, candidate)
    protocol = measured.protocol
    print_out(
        f"\n{problem_set.name} ({problem_set.benchmark.hub}): {protocol.problems} of {problem_set.benchmark.rows} "
        f"problems, {protocol.n} responses each, protocol {protocol.digest}"
    )
    print_out(f"a response ends with {' or '.join(protocol.stop)}")
    ids = [problem.id for problem in problem_set.problems]
    golds = [problem.gold for problem in problem_set.problems]
    print_prompts(measured.prompts, ids, candidate.tokenizer, golds)
    print_lengths([len(prompt) for prompt in measured.prompts], "prompts")
    samples = inputs_of_problems(problem_set.problems)
    check = check_gold(protocol.grader, measured.grader, samples, candidate.tokenizer, is_first=True)
    problems = print_gold_checks([check])
    responses = protocol.problems * protocol.n
    print_out(
        f"\n{responses} responses of at most {protocol.max_new_tokens} tokens: at most "
        f"{responses * protocol.max_new_tokens:,} tokens"
    )
    return problems
