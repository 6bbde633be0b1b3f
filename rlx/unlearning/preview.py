"""``rlx unlearn --preview``: the requests, sequences and size of a run, without its weights; writes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from rlx.console import print_out
from rlx.data.chat import check_prompts, stop_ids
from rlx.data.preview import print_lengths, print_problems, print_prompts
from rlx.engine.load import describe_model, load_tokenizer
from rlx.engine.lora import causal_lm
from rlx.engine.skeleton import load_skeleton, plan_memory
from rlx.registry import Method
from rlx.specs.resolve_unlearn import unlearn_method
from rlx.specs.unlearn import ResolvedUnlearn
from rlx.unlearning.build import freeze_head, most_update_tokens, template_of
from rlx.unlearning.components import updates_per_epoch
from rlx.unlearning.data.passages import load_passages
from rlx.unlearning.data.requests import Request, coverage, with_spans
from rlx.unlearning.data.tokens import examples

OPEN, CLOSE = "⟦", "⟧"
"""Brackets around a sensitive span, for output without colour."""
MOST_REQUESTS = 500
"""Most requests that are printed."""


def preview_unlearn(resolved: ResolvedUnlearn, others: Sequence[str], world: int) -> int:
    """Print what an unlearning run would read and do.

    Args:
        resolved: the run.
        others: names of the methods that are run on the same data for comparison.
        world: number of its processes.

    Returns:
        The exit code: 1 if something is wrong.

    Raises:
        UserError: what the run would raise for its data, model or tokenizer.
    """
    spec = resolved.spec
    description = describe_model(resolved.model_folder, spec.model)
    tokenizer = load_tokenizer(resolved.model_folder, spec.model)
    template = template_of(resolved, tokenizer)
    sets = load_passages(spec.forget, spec.evaluation.limit, tokenizer, description.context)
    stops = stop_ids(description.generation_config, spec.forget, tokenizer)
    questions = (template.prompt(request.question) for request in (*sets.forget, *sets.retain) if request.question)
    check_prompts(questions, stops, description.vocabulary, tokenizer)
    print_out(f"preview of {resolved.run_id}: no weights are loaded and nothing is written")
    if others:
        print_out(f"{', '.join(others)} would run on the same data")
    measured = ", ".join(f"{len(requests)} {part}" for part, requests in sets.measured.items())
    print_out(
        f"{len(sets.forget)} requests to forget ({spec.forget.source}), {len(sets.retain)} rows to retain; measured: "
        f"{measured}"
    )
    for notice in sets.notices:
        print_out(notice)
    requests = with_spans(sets.forget, spec.forget.spans)
    _print_requests(requests)
    problems = _print_coverage(resolved, requests)
    forget = examples(tokenizer, template, requests, spec.forget.max_tokens)
    retain = examples(tokenizer, template, sets.retain, spec.forget.max_tokens)
    sequences = [(*e.encoded.sequence.prompt, *e.encoded.sequence.response) for e in forget]
    print_out(f"\nno sequence is longer than forget.max_tokens={spec.forget.max_tokens}, which would end the run")
    print_out("a sequence is a prompt with its answer; the loss is over the tokens of the answer")
    print_prompts(sequences, [request.id for request in requests], tokenizer)
    print_lengths([len(sequence) for sequence in sequences], "forget sequences")
    print_lengths([len(e.encoded.sequence) for e in retain], "retain sequences")
    longest = max(len(e.encoded.sequence) for e in [*forget, *retain])
    return print_problems(problems + _print_size(resolved, len(forget), longest, world))


def _print_requests(requests: Sequence[Request]) -> None:
    """Print every request with its sensitive spans in brackets, which are red on a terminal."""
    print_out(f"\nsensitive parts are marked {OPEN}so{CLOSE}; the source of the spans is in parentheses")
    for request in requests[:MOST_REQUESTS]:
        source = f" ({request.source})" if request.source else " (no sensitive part)"
        print_out(f"request {request.id}{source}")
        if request.question:
            print_out(f"  Q {request.question}")
        print_out(Text("  A " if request.question else "    ").append_text(marked(request)))
    if len(requests) > MOST_REQUESTS:
        print_out(f"and {len(requests) - MOST_REQUESTS} more requests")
    print_out("")


def marked(request: Request) -> Text:
    """The answer with its sensitive spans in brackets and in colour."""
    text, position = Text(), 0
    for span in request.spans:
        text.append(request.answer[position : span.start])
        text.append(f"{OPEN}{request.answer[span.start : span.end]}{CLOSE}", style="bold red")
        position = span.end
    return text.append(request.answer[position:])


def _print_coverage(resolved: ResolvedUnlearn, requests: Sequence[Request]) -> list[str]:
    """Print which requests have sensitive spans; returns what is wrong, as sentences."""
    spec = resolved.spec
    if spec.forget.spans == "surprisal":
        print_out("sensitive spans: forget.spans=surprisal finds them with the model's weights")
        return []
    report = coverage(requests)
    for line in report.lines():
        print_out(line)
    component = unlearn_method(spec)
    needs = component.needed(Method(component, component.hyper(**spec.method.params)).hyper)
    if "forget.sensitive" in needs and not report.covered:
        return [
            f"none of the {report.requests} requests has a sensitive span, and method '{spec.method.name}' forgets "
            "spans only: give spans or subjects in the request file, or use --spans all"
        ]
    return []


def _print_size(resolved: ResolvedUnlearn, forget: int, longest: int, world: int) -> list[str]:
    """Print updates, tokens and memory; returns what is wrong, as sentences."""
    spec = resolved.spec
    per_epoch = updates_per_epoch(forget, spec.batch.forget)
    retained = spec.batch.retain or spec.batch.forget
    print_out(
        f"\n{spec.epochs} epochs of {per_epoch} updates, {spec.epochs * per_epoch} in total, each of up to "
        f"{spec.batch.forget} forget and {retained} retain sequences"
    )
    print_out(f"tokens of an update: at most {(2 * spec.batch.forget + retained) * longest:,}, with one alternate each")
    skeleton = load_skeleton(resolved.model_folder, spec.model)
    if skeleton is not None and not spec.method.train_lm_head:
        freeze_head(causal_lm(skeleton))
    tokens = min(spec.batch.max_tokens, most_update_tokens(spec))
    plan = plan_memory(skeleton, spec.model, spec.sharding, tokens, world)
    print_out(f"memory of an update of {tokens:,} tokens: {plan.sentence() if plan else 'not estimated'}")
    print_out("time: not estimated, because it depends on the method, its references and the generated answers")
    if plan and not plan.fits:
        return [
            f"an update is estimated not to fit into the free memory ({plan.sentence()}): lower batch.max_tokens, use "
            "model.lora or more processes"
        ]
    return []
