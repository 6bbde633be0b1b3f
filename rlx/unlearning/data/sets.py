"""The data sets of an unlearning experiment: forget, retain, and sets that are only measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlx.data.rows import read_rows
from rlx.errors import UserError
from rlx.files.sources import Source
from rlx.specs.resolve_unlearn import GENERAL_FACTS
from rlx.specs.unlearn import Forget
from rlx.unlearning.data.minitofu import generate
from rlx.unlearning.data.requests import MOST_SHOWN, Request, read_requests, request_of

QUESTIONS_AN_AUTHOR = 20
RETAIN_OF = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
HOLDOUT_OF = {"forget01": "holdout01", "forget05": "holdout05", "forget10": "holdout10"}


@dataclass(frozen=True, slots=True)
class Sets:
    """The requests of an experiment, with their spans as given.

    Example:
        ``Sets(forget=[...], retain=[...], measured={"retain": [...], "world_facts": [...]})``
    """

    forget: list[Request]
    retain: list[Request]
    """Rows that training must keep."""
    measured: Mapping[str, list[Request]] = field(default_factory=dict)
    """By part: ``retain``, ``real_authors``, ``world_facts`` and ``holdout``, those that exist."""
    notices: tuple[str, ...] = ()
    """What a person should know about these sets, as sentences."""


def load_sets(forget: Forget, limit: int) -> Sets:
    """The sets that ``forget.source`` names.

    Args:
        forget: the spec's section.
        limit: largest number of rows of each measured set; complete authors are used.

    Raises:
        UserError: when a file or the data set cannot be read.
    """
    if forget.source == "minitofu":
        data = generate(0)
        kept_sets = {"retain": data.retain, "real_authors": data.real_people, "world_facts": data.world_facts}
        # The facts are trained on too, as the rows that surround a real forget request would be.
        trained = [*data.retain, *data.real_people, *data.world_facts]
        return Sets(data.forget, trained, {**_limited(kept_sets, limit), "holdout": data.holdout})
    if forget.source.startswith("tofu/"):
        return _tofu(forget.source.removeprefix("tofu/"), forget.tofu, limit)
    requests = read_requests(Path(forget.source))
    notices = []
    if forget.retain == "auto":
        retain = read_requests(GENERAL_FACTS, "forget.retain")
        notices.append(
            f"forget.retain is not given: {len(retain)} general questions and answers ({GENERAL_FACTS.name}) are "
            "retained and measured instead; questions of the model's own domain (--retain) would protect it better"
        )
    else:
        retain = read_requests(Path(forget.retain), "forget.retain")
    notices += conflicts(requests, retain, forget)
    return Sets(requests, retain, _limited({"retain": retain}, limit), tuple(notices))


def conflicts(requests: Sequence[Request], retain: Sequence[Request], forget: Forget) -> list[str]:
    """Sentences about answers that are both to be forgotten and to be retained.

    Args:
        requests: what to forget.
        retain: what to retain.
        forget: the spec's section, for messages.

    Raises:
        UserError: when a request is itself a row of the retain set: it would be forgotten and retained at once.
    """
    rows = {(_normal(row.question), _normal(row.answer)): row for row in reversed(retain)}
    both = [(r, row) for r in requests if (row := rows.get((_normal(r.question), _normal(r.answer))))]
    if both:
        request, row = both[0]
        more = f", and so are {len(both) - 1} more" if len(both) > 1 else ""
        raise UserError(
            f"request {request.id} (line {request.line} of {forget.source}) is also line {row.line} of forget.retain "
            f"'{forget.retain}'{more}: it would be forgotten and retained at once",
            fix="remove such rows from the retain file",
        )
    first: dict[tuple[str, str], Request] = {}
    twice = [
        f"{request.id} and {earlier.id}"
        for request in requests
        if (earlier := first.setdefault((_normal(request.question), _normal(request.answer)), request)) is not request
    ]
    notices = (
        [f"these requests are the same and are counted separately: {', '.join(twice[:MOST_SHOWN])}"] if twice else []
    )
    answers = {_normal(row.answer): row for row in reversed(retain)}
    equal = [(r, row) for r in requests if (row := answers.get(_normal(r.answer)))]
    if not equal:
        return notices
    shown = ", ".join(f"{r.id} (line {row.line} of the retain set)" for r, row in equal[:MOST_SHOWN])
    more = f" and {len(equal) - MOST_SHOWN} more" if len(equal) > MOST_SHOWN else ""
    return [
        *notices,
        "the answers of these requests are also answers of the retain set, which works against forgetting them: "
        f"{shown}{more}",
    ]


def _normal(text: str) -> str:
    """A text without differences of case and white space."""
    return " ".join(text.casefold().split())


def _tofu(split: str, where: str, limit: int) -> Sets:
    """A TOFU split, with its spans if the folder has them, and the sets that are measured with it."""
    rows = _folder_rows(Path(where)) if Path(where).is_dir() else _hub_rows(where)
    forget = _joined(rows(split), rows(f"{split}_perturbed"))
    if Path(where, f"{split}_spans.jsonl").is_file():
        marked = {(r.question, r.answer): r for r in _requests(rows(f"{split}_spans"))}
        forget = [
            replace(r, spans=m.spans, source=m.source, repaired=m.repaired, refused=m.refused)
            if (m := marked.get((r.question, r.answer)))
            else r
            for r in forget
        ]
    kept_sets = {
        "retain": _requests(rows("retain_perturbed")),
        "real_authors": _requests(rows("real_authors_perturbed")),
        "world_facts": _requests(rows("world_facts_perturbed")),
    }
    # Only TOFU's own authors have twenty questions each.
    alone = {
        part: [replace(r, author=i) for i, r in enumerate(kept_sets[part])] for part in ("real_authors", "world_facts")
    }
    measured = {**_limited({**kept_sets, **alone}, limit), "holdout": _requests(rows(HOLDOUT_OF[split]))}
    return Sets(forget, _requests(rows(RETAIN_OF[split])), measured)


def _requests(rows: Sequence[Mapping[str, Any]]) -> list[Request]:
    """TOFU rows as requests; twenty consecutive questions belong to one author."""
    return [
        replace(request_of(dict(row), number), author=(number - 1) // QUESTIONS_AN_AUTHOR)
        for number, row in enumerate(rows, 1)
    ]


def _joined(plain: Sequence[Mapping[str, Any]], perturbed: Sequence[Mapping[str, Any]]) -> list[Request]:
    """Forget rows with the paraphrase and wrong answers of the perturbed split, by question."""
    extra = {(row["question"], row["answer"]): row for row in perturbed}
    rows = [{**extra.get((row["question"], row["answer"]), {}), **row} for row in plain]
    return _requests(rows)


def _folder_rows(folder: Path) -> Callable[[str], list[dict[str, Any]]]:
    def rows(name: str) -> list[dict[str, Any]]:
        path = folder / f"{name}.jsonl"
        return [dict(row.content) for row in read_rows(Source(str(path), key="forget.tofu"))]

    return rows


def _hub_rows(name: str) -> Callable[[str], list[dict[str, Any]]]:
    def rows(subset: str) -> list[dict[str, Any]]:
        import datasets

        try:
            return [dict(row) for row in datasets.load_dataset(name, subset, split="train")]
        except Exception as error:  # the hub library raises exceptions of many types
            raise UserError(
                f"forget.tofu '{name}' ({subset}) does not load ({type(error).__name__}: {str(error).splitlines()[0]})",
                fix="check the network, or give a folder with TOFU's .jsonl files",
                exit_code=1,
            ) from None

    return rows


def _limited(parts: Mapping[str, list[Request]], limit: int) -> dict[str, list[Request]]:
    """As many complete authors as fit, at least one, spread evenly over the set."""
    limited = {}
    for part, requests in parts.items():
        authors: dict[int, list[Request]] = {}
        for number, request in enumerate(requests):
            authors.setdefault(number if request.author is None else request.author, []).append(request)
        groups = list(authors.values())
        size = max(1, len(requests) // len(groups))
        count = max(1, min(len(groups), limit // size))
        selected = sorted({round(i * (len(groups) - 1) / max(count - 1, 1)) for i in range(count)})
        limited[part] = [request for index in selected for request in groups[index]]
    return limited
