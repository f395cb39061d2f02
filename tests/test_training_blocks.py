"""How the rows of a step are cut into micro-batches."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cong.training.blocks import BlockCollator, BlockRows, Blocks, cut, neighbours

counts = st.lists(st.integers(1, 300), min_size=1, max_size=6).flatmap(
    lambda first: st.integers(1, 4).map(lambda steps: first * steps * 4)
)


@given(tokens=counts, workers=st.integers(1, 4), most=st.integers(1, 900))
def test_every_row_is_in_one_block_of_its_step_and_every_worker_has_as_many_blocks(tokens, workers, most):
    step = 4
    blocks = cut(tokens, step=step, workers=workers, most=most)
    at_once = blocks.accumulation * workers
    assert len(blocks.rows) == len(tokens) // step * at_once
    for start in range(0, len(tokens), step):
        first = start // step * at_once
        rows = [row for block in blocks.rows[first : first + at_once] for row in block]
        assert sorted(rows) == list(range(start, start + step))
    assert all(blocks.rows)


@given(tokens=counts, most=st.integers(1, 900))
def test_a_block_of_one_worker_holds_no_more_tokens_than_allowed_or_than_the_longest_row(tokens, most):
    blocks = cut(tokens, step=4, workers=1, most=most)
    assert max(sum(tokens[row] for row in block) for block in blocks.rows) <= max(most, *tokens)


def test_a_step_that_fits_is_one_block_of_each_worker():
    assert cut([5, 4, 3, 3], step=4, workers=1, most=15).rows == ((0, 1, 2, 3),)
    assert cut([5, 4, 3, 3], step=4, workers=2, most=15).rows == ((0, 3), (1, 2))
    assert cut([5, 4, 3, 3], step=4, workers=3, most=1).accumulation == 1


def test_an_item_of_the_dataset_is_the_rows_of_a_block():
    from datasets import Dataset

    rows = Dataset.from_dict({"input_ids": [[1], [2, 3], [4]], "length": [1, 2, 1]})
    items = BlockRows(rows=rows, blocks=Blocks(rows=((2, 0), (1,)), accumulation=2, rows_per_step=3))
    assert [[row["input_ids"] for row in block] for block in (items[0], items[1])] == [[[4], [1]], [[2, 3]]]
    assert len(items) == 2
    assert BlockCollator(lambda rows: {"count": len(rows)})([items[0]]) == {"count": 2}


@given(st.lists(st.integers(1, 50)), st.integers(1, 80))
def test_neighbouring_rows_are_read_together_up_to_a_number_of_tokens(tokens, most):
    batches = neighbours(tokens, most=most)
    assert [row for batch in batches for row in batch] == list(range(len(tokens)))
    assert all(len(batch) == 1 or sum(tokens[row] for row in batch) <= most for batch in batches)


@given(st.lists(st.integers(1, 50)).map(sorted), st.integers(1, 80))
def test_padded_rows_are_read_together_up_to_a_number_of_tokens_with_padding(tokens, most):
    batches = neighbours(tokens, most=most, padded=True)
    assert [row for batch in batches for row in batch] == list(range(len(tokens)))
    assert all(len(batch) == 1 or len(batch) * tokens[batch[-1]] <= most for batch in batches)
    # None could have taken the next row too.
    assert all((len(one) + 1) * tokens[other[0]] > most for one, other in itertools.pairwise(batches))


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_the_tokens_of_a_step_evenly(workers):
    tokens = [400, 300, 200, 100, 100, 50, 25, 25] * 3
    blocks = cut(tokens, step=8, workers=workers, most=150)
    loads = [sum(sum(tokens[row] for row in block) for block in blocks.rows[rank::workers]) for rank in range(workers)]
    assert max(loads) < 1.25 * min(loads)
