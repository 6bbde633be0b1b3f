"""How a reward function is called: which arguments its signature asks for, and where it is defined.

There are three forms. A registered grader gets ``(response, gold)``. A plain function with a parameter ``completions``
gets lists, one entry a sample, under TRL's names. Any other plain function gets one sample. Plain functions get their
arguments by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlx.errors import UserError, did_you_mean
from rlx.registry import Component, get
from rlx.rewards.reward_input import RewardInput

Form = Literal["grader", "single", "batch"]
SINGLE: Mapping[str, Callable[[RewardInput], Any]] = {
    "completion": lambda sample: sample.completion,
    "response": lambda sample: sample.completion,
    "answer": lambda sample: sample.answer,
    "gold": lambda sample: sample.answer,
    "prompt": lambda sample: sample.prompt,
    "completion_ids": lambda sample: list(sample.completion_ids),
}
"""Arguments of a function of one sample; every other name is a column."""
BATCH: Mapping[str, Callable[[RewardInput], Any]] = {
    "completions": lambda sample: sample.messages,
    "answers": lambda sample: sample.answer,
    "answer": lambda sample: sample.answer,
    "prompts": lambda sample: sample.prompt,
    "completion_ids": lambda sample: list(sample.completion_ids),
}
"""Arguments of a batched function, as lists; every other name is a column."""
IMPLICIT = {
    "single": ("completion", "answer", "prompt", "completion_ids"),
    "batch": ("prompts", "completion_ids", "answer"),
}
"""Arguments that ``**kwargs`` gets in addition to the columns."""
TAKES_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class RewardFunction:
    """A reward function, its form and its file.

    Example:
        ``load_reward("my.py:length", key="reward.name").form == "single"``
    """

    reference: str
    """As the user wrote it."""
    call: Callable[..., Any]
    form: Form
    is_async: bool
    own_file: bool
    """False for rlx's registered graders, which get the text behind the end of thinking."""
    file: str
    line: int | None
    names: tuple[str, ...]
    """Parameters that can be given by name, in order."""
    required: frozenset[str]
    """Those without a default."""
    takes_all: bool
    """Whether there is a ``**kwargs``."""

    def check_columns(self, columns: Collection[str], key: str) -> None:
        """Refuse a parameter that is neither one of rlx's arguments nor a column of the data.

        Args:
            columns: names of the columns that at least one row has.
            key: the spec key of the reward.

        Raises:
            UserError: with the names that there are.
        """
        if self.form == "grader":
            return
        by_name = SINGLE if self.form == "single" else BATCH
        for name in self.names:
            if name in self.required and name not in by_name and name not in columns:
                choices = [*by_name, *(column for column in columns if column not in by_name)]
                raise UserError(
                    f"{key} '{self.reference}': parameter '{name}' ({self.file} line {self.line}) is no column of the "
                    "data",
                    fix=did_you_mean(name, choices),
                )

    def arguments(self, samples: Sequence[RewardInput]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments of one call; ``samples`` is a single one unless the form is ``batch``."""
        if self.form == "grader":
            (sample,) = samples
            return [sample.completion if self.own_file else sample.final, sample.answer], {}
        by_name = SINGLE if self.form == "single" else BATCH
        columns = list(dict.fromkeys(column for sample in samples for column in sample.row))
        given = {*self.names, *columns, *IMPLICIT[self.form]} if self.takes_all else set(self.names)
        arguments: dict[str, Any] = {}
        for name in sorted(given):
            if name in by_name:
                values = [by_name[name](sample) for sample in samples]
            elif name in columns or name in self.required:
                values = [sample.row.get(name) for sample in samples]
            else:
                continue
            arguments[name] = values if self.form == "batch" else values[0]
        if self.takes_all and self.form == "batch":
            arguments.pop("prompt", None)  # TRL gives this column as prompts
        return [], arguments


def load_reward(reference: str, key: str) -> RewardFunction:
    """The reward of that name, or the function of a file.

    Args:
        reference: a registered name, or ``path/to/file.py:function``.
        key: the spec key that the reference came from.

    Raises:
        UserError: when there is none, or its parameters cannot be given by name.
    """
    component = get("reward", reference, key=key)
    function = inspect.unwrap(component.fn)
    code = getattr(function, "__code__", None)
    file, line = (code.co_filename, code.co_firstlineno) if code else (reference.partition(":")[0], None)
    form, parameters = _form(component, f"{key} '{reference}'")
    named = [parameter for parameter in parameters if parameter.kind in TAKES_NAME]
    return RewardFunction(
        reference=reference,
        call=component.fn,
        form=form,
        is_async=inspect.iscoroutinefunction(component.fn),
        own_file=".py" in reference,
        file=file,
        line=line,
        names=tuple(parameter.name for parameter in named),
        required=frozenset(parameter.name for parameter in named if parameter.default is parameter.empty),
        takes_all=any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters),
    )


def _form(component: Component, subject: str) -> tuple[Form, list[inspect.Parameter]]:
    """The form of a reward function, and its parameters.

    Raises:
        UserError: for a positional-only parameter, or a function without parameters for a completion.
    """
    if not component.plain:
        return "grader", []
    try:
        parameters = list(inspect.signature(component.fn).parameters.values())
    except ValueError:  # some functions written in C
        raise UserError(f"{subject} has no readable signature", fix="write a function that calls it") from None
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise UserError(f"{subject}: parameter '{parameter.name}' is positional only", fix="remove the '/'")
    names = [parameter.name for parameter in parameters]
    if "completions" in names:
        return "batch", parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    if not takes_all and not {"completion", "response", "completion_ids"} & set(names):
        raise UserError(
            f"{subject} has no parameter for the response (parameters: {', '.join(names) or 'none'})",
            fix="write it as f(completion, answer) or f(completions, **kwargs)",
        )
    return "single", parameters
