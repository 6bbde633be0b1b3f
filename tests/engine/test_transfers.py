"""How often an update makes the CPU wait for the device, counted without one: by the operations that read a tensor."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rlx.engine.batch import Batch
from rlx.numerics.collate import padded_plan
from rlx.numerics.terms import Counts
from tests.engine.test_step import SEQUENCES, TOKENS, engine, likelihood, read

READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.is_nonzero", "aten.equal")
"""Operations whose result, or its shape, depends on values that a GPU has yet to compute."""
METHODS = ("tolist", "cpu", "numpy")
"""Methods that copy to main memory, which a CPU tensor does without an operation."""


class ReadCounter(TorchDispatchMode):
    """Counts the operations of ``READS``, and indexing by a mask."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        indices = args[1] if str(operation).startswith("aten.index") else []
        masked = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)
        self.count += masked or str(operation).startswith(READS)
        return operation(*args, **(kwargs or {}))


@pytest.fixture
def counted(monkeypatch):
    """A function that runs another one and returns how many values it read from tensors."""

    def count(work):
        counter = ReadCounter()
        with monkeypatch.context() as patch:
            for name in METHODS:
                original = getattr(torch.Tensor, name)

                def counting(tensor, *args, _original=original, **kwargs):
                    counter.count += 1
                    return _original(tensor, *args, **kwargs)

                patch.setattr(torch.Tensor, name, counting)
            with counter:
                work()
        return counter.count

    return count


@pytest.mark.parametrize("max_tokens", [10_000, 9])
def test_an_update_reads_its_values_in_one_transfer_whatever_its_number_of_micro_batches(counted, max_tokens):
    trained = engine(max_tokens=max_tokens)
    batch = Batch(SEQUENCES, read, likelihood(), {"nll": Counts(TOKENS, len(SEQUENCES), 20)})
    trained.update(batch)
    # transformers' own mask code reads one value per forward pass (find_packed_sequence_indices).
    assert counted(lambda: trained.update(batch)) - len(padded_plan(SEQUENCES, max_tokens, False)) == 1


def test_reading_a_value_counts_as_a_wait(counted):
    value = torch.ones(3)
    assert counted(lambda: float(value.sum())) == 1
    assert counted(lambda: value.tolist()) == 1
    assert counted(lambda: value[value > 0]) == 1
    assert counted(lambda: value * 2) == 0
