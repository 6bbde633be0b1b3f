"""Grading the stored responses of finished evaluations again, so that runs graded by other versions can be compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from rlx.errors import UserError
from rlx.evaluation.build import write_file, write_result
from rlx.evaluation.grading import inputs_of_rows
from rlx.evaluation.loop import regrade
from rlx.registry import names
from rlx.rewards.grade import VERSION
from rlx.rewards.reward_set import load_grader
from rlx.rewards.verdict import Verdict
from rlx.runs.folder import RunDir, read_json
from rlx.runs.integrity import is_plain_name
from rlx.runs.samples import Row
from rlx.specs.evaluate import Protocol
from rlx.specs.reading import validate


def regrade_run(run: RunDir) -> list[str]:
    """Grade every finished evaluation of a run with the present grader; nothing is sampled.

    The results of the other version stay where they are. A grader in a user's own file is not called.

    Args:
        run: the run.

    Returns:
        Names of the new results.
    """
    run.refuse_links_outside()
    graders = names("reward")
    regraded: list[str] = []
    for stored in run.evaluations():
        if not stored.result.is_file() or not stored.parts():
            continue
        protocol = validate(read_json(stored.protocol), Protocol)
        if protocol.grader not in graders or protocol.grader_version == VERSION:
            continue
        present = protocol.model_copy(update={"grader_version": VERSION})
        name = f"{present.benchmark}-{present.digest}"
        if not is_plain_name(name):
            raise UserError(
                f"{stored.protocol} names the benchmark '{present.benchmark}', which is not the name of a folder",
                fix="compare the run without --regrade",
                exit_code=1,
            )
        folder = run.evaluation(stored.root.parent.name, name)
        if folder.result.is_file():
            continue
        write_file(folder.protocol, json.dumps(present.record(), indent=2))
        with RunDir(folder.root).locked():
            write_result(folder, present.benchmark, regrade(stored, folder, _grading(present.grader)))
        regraded.append(name)
    return regraded


def _grading(grader: str) -> Callable[[Sequence[Row]], list[Verdict]]:
    """A function that grades stored rows with a registered grader."""
    grade = load_grader(grader, "grader", ())
    return lambda rows: grade(inputs_of_rows(rows))
