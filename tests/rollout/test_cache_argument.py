"""The names of caches and of activation checkpointing in newer and older versions of transformers."""

from __future__ import annotations

import pytest
from torch import nn

from rlx.engine.activation_checkpointing import disable_checkpointing, enable_checkpointing, recomputes_activations
from rlx.rollout.cache_argument import cache_argument
from tests.tiny_models import tiny_model


class Newer(nn.Module):
    """A model of a newer version: warnings of the former names are failures here."""

    def __init__(self):
        super().__init__()
        self.gradient_checkpointing = False

    def forward(self, input_ids, cache=None, **kwargs): ...

    def activation_checkpointing_enable(self, every_n_layers=1, offload=False, activation_checkpointing_kwargs=None):
        assert activation_checkpointing_kwargs == {"use_reentrant": False}
        self.gradient_checkpointing = True

    def activation_checkpointing_disable(self):
        self.gradient_checkpointing = False

    def gradient_checkpointing_enable(self, **kwargs):
        raise AssertionError("deprecated")

    gradient_checkpointing_disable = gradient_checkpointing_enable
    is_gradient_checkpointing = property(gradient_checkpointing_enable)


class Older(nn.Module):
    def forward(self, input_ids, cache=None, past_key_values=None): ...


class Mamba(nn.Module):
    def forward(self, input_ids, cache_params=None): ...


class Stateless(nn.Module):
    def forward(self, input_ids, **kwargs): ...


@pytest.mark.parametrize(
    ("model", "name"), [(Newer(), "cache"), (Older(), "past_key_values"), (Mamba(), "cache_params")]
)
def test_the_cache_has_the_name_that_the_forward_has(model, name):
    assert cache_argument(model) == name


def test_a_forward_that_names_no_cache_is_refused():
    with pytest.raises(ValueError, match="takes no cache"):
        cache_argument(Stateless())


@pytest.mark.parametrize("model", [Newer(), tiny_model("llama")], ids=["newer", "installed"])
def test_recomputation_is_switched_under_the_name_that_the_model_has(model):
    assert not recomputes_activations(model)
    enable_checkpointing(model)
    assert recomputes_activations(model)
    disable_checkpointing(model)
    assert not recomputes_activations(model)
