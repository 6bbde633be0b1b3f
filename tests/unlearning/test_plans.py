"""The micro-batches of an unlearning update for a token budget."""

from rlx.numerics.collate import TokenSequence
from rlx.unlearning.update import Row, plan_of

SEQUENCE = TokenSequence((1, 2, 3), (4, 5))
ROWS = [Row(side, SEQUENCE, (True, True), (False, False), {}) for side in ["forget"] * 4 + ["alternate"] * 4]


def test_an_alternate_stays_with_its_forget_sequence_whatever_the_budget():
    plan = plan_of(ROWS, paired=True, micro=0)
    assert plan(1000) == [[0, 4, 1, 5, 2, 6, 3, 7]]
    assert plan(20) == [[0, 4, 1, 5], [2, 6, 3, 7]]
    assert plan(1) == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_micro_batches_that_are_averaged_separately_do_not_depend_on_the_budget():
    plan = plan_of(ROWS, paired=False, micro=2)
    assert plan(1000) == plan(1) == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_the_engine_divides_the_rest():
    assert plan_of(ROWS, paired=False, micro=0) is None
