"""What vLLM is asked to do on a GPU, with an engine that records it: sleep and wake, and all requests at once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlx.rollout import vllm
from rlx.rollout.sampler import Sampling
from rlx.rollout.vllm import EngineOptions, VLLMSampler

OPTIONS = EngineOptions("models/x", dtype="bfloat16", longest=160, memory_share=0.4)


class Engine:
    """Finishes one request per step, the newest first."""

    def __init__(self, log):
        self.log, self.waiting = log, []
        model = SimpleNamespace(config=LlamaConfig())
        runner = SimpleNamespace(get_model=lambda: model, reload_weights=self.reload)
        worker = SimpleNamespace(worker=SimpleNamespace(model_runner=runner))
        self.model_executor = SimpleNamespace(driver_worker=worker)

    def reload(self, weights_iterator):
        self.log.append(("reload", len(list(weights_iterator))))

    def add_request(self, name, prompt, parameters):
        self.log.append(("add", name))
        self.waiting.append(name)

    def step(self):
        self.log.append(("step",))
        output = SimpleNamespace(token_ids=[5, 2], logprobs=[{5: one()}, {2: one()}], finish_reason="stop")
        return [SimpleNamespace(finished=True, request_id=self.waiting.pop(), outputs=[output])]

    def abort_request(self, names):
        self.log.append(("abort", names))


def one():
    return SimpleNamespace(logprob=-0.5)


@pytest.fixture
def log():
    return []


@pytest.fixture
def sampler(log, monkeypatch):
    engine = Engine(log)

    def start(**arguments):
        log.append(arguments)
        return SimpleNamespace(
            llm_engine=engine,
            sleep=lambda level: log.append(("sleep", level)),
            wake_up=lambda tags: log.append(("wake", *tags)),
            reset_prefix_cache=lambda: log.append(("reset",)),
        )

    kinds = SimpleNamespace(RequestOutputKind=SimpleNamespace(FINAL_ONLY=2))
    fake = SimpleNamespace(LLM=start, SamplingParams=SimpleNamespace, sampling_params=kinds)
    monkeypatch.setattr(vllm, "_imported", lambda: fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return VLLMSampler(OPTIONS)


def test_on_a_gpu_it_may_sleep_and_uses_graphs_and_a_share_of_the_memory(sampler, log):
    (arguments,) = log
    assert arguments["enable_sleep_mode"] and arguments["gpu_memory_utilization"] == 0.4
    assert not arguments.get("enforce_eager") and arguments.get("enable_prefix_caching", True)


def test_weights_wake_before_they_are_renewed_and_the_cache_after(sampler, log):
    lm = LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    log.clear()
    sampler.load_weights(lm)
    count = len(list(lm.named_parameters()))
    assert log == [("reload", count), ("reset",)], "it was awake"
    log.clear()
    sampler.sleep()
    sampler.sleep()
    sampler.load_weights(lm)
    assert log == [("sleep", 2), ("wake", "weights"), ("reload", count), ("wake", "kv_cache"), ("reset",)]


def test_all_requests_are_given_before_the_first_step_and_an_abandoned_stream_aborts_the_rest(sampler, log):
    log.clear()
    stream = sampler.stream([[3, 4], [5]], [[1, 2], [3]], Sampling(1.0, 8, (2,)))
    q, g, response = next(stream)
    assert (q, g) == (1, 0) and response.tokens == (5, 2) and response.finished
    assert [entry[0] for entry in log] == ["add", "add", "add", "step"]
    stream.close()
    assert log[-1] == ("abort", ["rlx-0", "rlx-1"])
