"""Build the components of an unlearning run from its resolved spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rlx.console import loading
from rlx.data.chat import check_prompts, end_of_turn, stop_ids
from rlx.data.chat import encode as encode_prompt
from rlx.engine.export import check_savable, keep_stop_ids
from rlx.engine.hidden_state_hook import HiddenStateHook
from rlx.engine.load import describe_model, load_model, load_tokenizer, load_trainable
from rlx.engine.lora import LM, causal_lm
from rlx.engine.model import head_of
from rlx.engine.random_states import seed_generators
from rlx.engine.recovery import Recovery
from rlx.engine.row_layout import choose_row_layout, shares_prompts
from rlx.engine.step import Engine, make_accelerator
from rlx.errors import UserError
from rlx.numerics.collate import TokenBatch
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.output_layer.statistics import label_logprobs, mean_row
from rlx.registry import Method
from rlx.rollout.build import make_answerer
from rlx.rollout.sampler import Sampling
from rlx.runs.folder import RunDir
from rlx.runs.recorder import Recorder
from rlx.runs.stop import Stop
from rlx.specs.resolve_unlearn import unlearn_method
from rlx.specs.train import Model
from rlx.specs.unlearn import ResolvedUnlearn, UnlearnSpec
from rlx.unlearning.components import Knowledge, UnlearnComponents, split_by_author, updates_per_epoch
from rlx.unlearning.data.passages import load_passages
from rlx.unlearning.data.requests import Coverage, Request, coverage, with_spans
from rlx.unlearning.data.sets import Sets
from rlx.unlearning.data.spans import surprising_spans
from rlx.unlearning.data.tokens import Example, Template, encode, examples
from rlx.unlearning.earlier import earlier_requests
from rlx.unlearning.masking import hide_quoted
from rlx.unlearning.reference import digest_of, list_reference, load_constants, reference_constants, save_constants
from rlx.unlearning.subject import Subject
from rlx.unlearning.update import Constants, example_row, side_needs, widened


@dataclass(frozen=True, slots=True)
class Assembled:
    """The components of a run, and the data of its final evaluation."""

    components: UnlearnComponents
    requests: Sequence[Request]
    """Forget requests with the spans used in training."""
    report: Coverage
    loaders: Mapping[str, Callable[[], LM]]
    """Functions that load the ``original``, the ``unlearned`` (once it is saved) and the ``retain`` model."""


def build_unlearn(resolved: ResolvedUnlearn, folder: RunDir, recorder: Recorder) -> Assembled:
    """The components of a run: model, engine, sampler, data, references and method.

    Raises:
        UserError: when a model or file cannot be read, or no request has a span for a method that reads spans.
    """
    spec = resolved.spec
    recovery = Recovery(folder)
    seed_generators(spec.seed)  # adapters start from the same random values on every process
    tokenizer = load_tokenizer(resolved.model_folder, spec.model)
    template = template_of(resolved, tokenizer)
    component = unlearn_method(spec)
    method = Method(component, component.hyper(**spec.method.params))
    needs = component.needed(method.hyper)
    sets = _load_sets(resolved, tokenizer, recorder)
    loading(f"the model {spec.model.path}")
    trained = load_trainable(resolved.model_folder, spec.model, make_accelerator(spec.model).device)
    lm = causal_lm(trained)
    if not spec.method.train_lm_head:
        freeze_head(lm)
    stops = stop_ids(lm.generation_config, spec.forget, tokenizer)
    questions = (template.prompt(request.question) for request in (*sets.forget, *sets.retain) if request.question)
    check_prompts(questions, stops, lm.get_input_embeddings().weight.shape[0], tokenizer)
    keep_stop_ids(lm, stops)
    check_savable(lm, tokenizer)
    # Before the weights are sharded over processes.
    reference_head = _detached_head_copy(lm) if needs_head(needs) and spec.method.train_lm_head else None
    mean_row_d = _mean_row(lm)
    total = spec.epochs * updates_per_epoch(len(sets.forget), spec.batch.forget)
    budget = spec.batch.max_tokens
    engine = Engine(trained, spec.model, spec.optim, total, budget, spec.sharding, most_update_tokens(spec))
    if notice := choose_row_layout(engine, share_prompts=False):
        recorder.note(notice)
    sampling = Sampling(0.0, spec.evaluation.max_new_tokens, stops)
    sampler, tolerance = make_answerer(resolved, engine, recorder)
    subject = Subject(engine, sampler, tokenizer, template, sampling, tolerance, share_prompts=shares_prompts(engine))
    requests = with_spans(sets.forget, spec.forget.spans)
    if spec.forget.spans == "surprisal":
        requests = _surprisal_requests(subject, requests, spec.forget.surprisal)
    report = _report_coverage(requests, needs, recorder, resolved)
    alternates = spec.seed if "alternate" in needs else None
    forget = examples(tokenizer, template, requests, spec.forget.max_tokens, alternates)
    retain = examples(tokenizer, template, sets.retain, spec.forget.max_tokens)
    settings = method.hyper.model_dump()
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    hook = HiddenStateHook(engine.lm, settings["layer"]) if any(need.endswith("layer") for need in needs) else None
    references = References(resolved, folder, engine, needs, settings.get("top_k", 1), hook, pad_id)
    validation, final = split_by_author(requests)
    components = UnlearnComponents(
        resolved=resolved,
        run=folder,
        subject=subject,
        method=method,
        needs=needs,
        forget=Knowledge(
            forget, references.of("forget", forget), references.of("alternate", forget) if "alternate" in needs else ()
        ),
        retain=Knowledge(retain, references.of("retain", retain)),
        validation=validation,
        final=final,
        measured=sets.measured,
        reference_head=reference_head,
        mean_row_d=mean_row_d,
        hook=hook,
        recorder=recorder,
        recovery=recovery,
        stop=Stop(),
        pad_id=pad_id,
        earlier=earlier_requests(spec.after, spec.model.trust_remote_code),
    )
    return Assembled(components, requests, report, _loaders(resolved, folder, engine))


@dataclass(frozen=True, slots=True)
class References:
    """Computes the constants of each side, or loads them from disk."""

    resolved: ResolvedUnlearn
    folder: RunDir
    engine: Engine
    needs: frozenset[str]
    top_k: int
    hook: HiddenStateHook | None
    pad_id: int

    def of(self, side: str, side_examples: Sequence[Example]) -> list[Constants]:
        """The constants of every example of a side."""
        declared = side_needs(self.needs, "forget" if side == "alternate" else side)
        constant_names = {need for need in declared if need.startswith("ref_")}
        rows = [example_row(side, example, {}) for example in side_examples]
        if "all_positions" in declared:
            width = max(len(row.sequence) for row in rows)
            rows = [widened(row, width, self.pad_id) for row in rows]
        if not constant_names:
            return [{} for _ in rows]
        spec = self.resolved.spec
        model = self.resolved.fingerprints.get("model", f"{spec.model.path}@{spec.model.revision}")
        layer = spec.method.params.get("layer")
        digest = digest_of(
            model, rows, constant_names, self.top_k, layer, spec.model.precision, spec.model.lora is not None
        )
        if self.engine.rank == 0:
            list_reference(self.folder.reference_list, digest)
        constants = load_constants(self.folder.references, digest, len(rows))
        if self.engine.agree(constants is None) or constants is None:  # every process takes part in computing them
            constants = reference_constants(self.engine, rows, constant_names, self.top_k, self.hook)
            if self.engine.rank == 0:
                save_constants(self.folder.references, digest, constants)
        return constants


def freeze_head(lm: LM) -> None:
    """Freeze the output layer, and embeddings tied to it."""
    head = lm.get_output_embeddings()
    for parameter in head.parameters():
        parameter.requires_grad_(False)


def needs_head(needs: frozenset[str]) -> bool:
    """Whether the method needs the reference's output layer."""
    return any(need.endswith("ref_hidden") for need in needs)


def most_update_tokens(spec: UnlearnSpec) -> int:
    """Most tokens of an update; each forget sequence has at most one alternate."""
    return (2 * spec.batch.forget + (spec.batch.retain or spec.batch.forget)) * spec.forget.max_tokens


def template_of(resolved: ResolvedUnlearn, tokenizer: Any) -> Template:
    """The prompt of a question, and the token after an answer, in the tokenizer's chat template."""
    forget = resolved.spec.forget
    prompt = cache(lambda question: list(encode_prompt(question, forget, tokenizer)))  # each has several answers
    return Template(prompt, end_of_turn(forget, tokenizer))


def _load_sets(resolved: ResolvedUnlearn, tokenizer: Any, recorder: Recorder) -> Sets:
    """The sets with their documents cut into passages; prints what a person should know about them."""
    spec = resolved.spec
    context = describe_model(resolved.model_folder, spec.model).context
    sets = load_passages(spec.forget, spec.evaluation.limit, tokenizer, context)
    for notice in sets.notices:
        recorder.note(notice)
    if len(sets.forget) == 1:
        recorder.note("one request cannot be split: the checkpoint is selected on the request that is measured")
    return sets


def _surprisal_requests(subject: Subject, requests: Sequence[Request], threshold: float) -> list[Request]:
    """Requests whose spans are the tokens that the model does not expect without the question."""
    bare = [encode(subject.tokenizer, subject.template, replace(request, question="")) for request in requests]

    def read(hidden_nd: Tensor, head: Head, tokens: TokenBatch) -> Tensor:
        return -label_logprobs(hidden_nd, tokens.targets_n, head)

    result = list(requests)
    for members, nats_n in subject.engine.score([encoded.sequence for encoded in bare], read):
        lengths = [len(bare[member].sequence.response) for member in members]
        for member, nats in zip(members, torch.split(nats_n.cpu(), lengths), strict=True):
            offsets = bare[member].offsets
            spans = surprising_spans(requests[member].answer, offsets, nats.tolist()[: len(offsets)], threshold)
            result[member] = replace(requests[member], spans=spans, source="surprisal" if spans else "")
    return result


def _report_coverage(
    requests: Sequence[Request], needs: frozenset[str], recorder: Recorder, resolved: ResolvedUnlearn
) -> Coverage:
    """Print which requests have sensitive spans, and refuse to go on if a method that needs spans has none."""
    report = coverage(requests)
    for line in report.lines():
        recorder.note(hide_quoted(line))
    if "forget.sensitive" in needs and not report.covered:
        raise UserError(
            f"none of the {report.requests} requests has a sensitive span, and method "
            f"'{resolved.spec.method.name}' forgets spans only",
            fix="give spans or subjects in the request file, or use --spans all",
        )
    return report


def _detached_head_copy(lm: LM) -> Head:
    head = head_of(lm)
    bias = None if head.bias_v is None else head.bias_v.detach().clone()
    return replace(head, weight_vd=head.weight_vd.detach().clone(), bias_v=bias)


def _mean_row(lm: LM) -> Tensor | None:
    """Mean row of the output layer; None if it is trained, so that the mean must be recomputed each time."""
    weight: Tensor = lm.get_output_embeddings().weight
    return None if weight.requires_grad else mean_row(weight.detach())


def _loaders(resolved: ResolvedUnlearn, folder: RunDir, engine: Engine) -> dict[str, Callable[[], LM]]:
    own, other = resolved.spec.model, resolved.spec.model.model_copy(update={"revision": None})

    def loader(path: str, model: Model) -> Callable[[], LM]:
        return lambda: load_model(path, model, engine.accelerator.device)

    loaders = {"original": loader(resolved.model_folder, own), "unlearned": loader(str(folder.model), other)}
    if resolved.retain_folder is not None:
        loaders["retain"] = loader(resolved.retain_folder, other)
    return loaders
