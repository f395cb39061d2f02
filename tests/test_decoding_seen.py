"""Seen tokens of a batch whose rows come, go and change places."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from cong.decoding.seen import SeenTokens

WIDTH = 11
tokens = st.lists(st.integers(0, WIDTH - 1), max_size=6)
steps = st.lists(
    st.tuples(st.sampled_from(["batch", "forget"]), st.lists(st.sampled_from("abcde"), min_size=1, unique=True)),
    max_size=12,
)


@given(prompts=st.fixed_dictionaries(dict.fromkeys("abcde", tokens)), steps=steps, data=st.data())
def test_every_row_has_seen_its_prompt_and_its_output_whatever_its_place(prompts, steps, data):
    seen = SeenTokens(width=WIDTH, device=torch.device("cpu"))
    outputs = {name: [] for name in prompts}
    for kind, names in steps:
        if kind == "forget":
            seen.forget(names)
            outputs |= {name: [] for name in names}
            continue
        for name in names:
            outputs[name] += data.draw(tokens)
        found = seen.of([(name, prompts[name], outputs[name]) for name in names])
        for row, name in zip(found, names, strict=True):
            assert set(row.nonzero().flatten().tolist()) == {*prompts[name], *outputs[name]}


def test_rows_may_be_forgotten_outside_of_the_mode_in_which_they_were_marked():
    with torch.inference_mode():
        seen = SeenTokens(width=WIDTH, device=torch.device("cpu"))
        seen.of([("a", [1], [2])])
    seen.forget(["a"])
    assert not seen.of([("b", [], [])]).any()


def test_there_is_room_for_any_number_of_rows_and_forgotten_ones_are_used_again():
    seen = SeenTokens(width=WIDTH, device=torch.device("cpu"))
    rows = [(str(number), [number % WIDTH], []) for number in range(300)]
    assert seen.of(rows).nonzero()[:, 1].tolist() == [number % WIDTH for number in range(300)]
    held = seen._table_RV.shape
    for _ in range(5):
        seen.forget([name for name, _, _ in rows])
        assert not seen._table_RV.any()
        seen.of(rows)
    assert seen._table_RV.shape == held
