"""Identity: what changes a fingerprint, and what must not."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import Number, Sum

from cong.generation import ContrastiveGenerate, Generate, Sampling
from cong.graph.fingerprint import canonical, fingerprint
from cong.graph.resources import Resources, load_profile
from cong.methods import cong, transition
from cong.scales import scale

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_the_canonical_form_of_plain_data_is_stable(value):
    assert canonical(canonical(value)) == canonical(value)


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_a_mapping_does_not_matter(mapping):
    assert fingerprint(mapping) == fingerprint(dict(reversed(mapping.items())))


@pytest.mark.parametrize("value", [{1, 2}, Path("/tmp"), object(), float("nan"), float("inf"), {1: "a"}, len, Number])
def test_a_value_without_canonical_form_raises(value):
    with pytest.raises(TypeError, match="no canonical form"):
        fingerprint(value)


def test_whole_floats_and_integers_are_the_same_number_but_truth_is_none():
    assert fingerprint(1) == fingerprint(1.0)
    assert fingerprint(True) != fingerprint(1)


def test_every_field_enters_the_fingerprint_defaults_included():
    stage = Generate(model=Number(), prompts=Number(value=2), max_new_tokens=8)
    changes = {"max_new_tokens": 9, "samples": 2, "seed": 1, "sampling": Sampling(top_p=0.5), "max_error_share": 0.5}
    changed = [dataclasses.replace(stage, **{name: value}).fingerprint for name, value in changes.items()]
    assert len({stage.fingerprint, *changed}) == len(changes) + 1
    assert stage.fingerprint == dataclasses.replace(stage, samples=1).fingerprint


def test_a_change_deep_below_changes_all_that_stands_on_it():
    assert (
        Sum(parts=(Sum(parts=(Number(value=1),)),)).fingerprint
        != Sum(parts=(Sum(parts=(Number(value=2),)),)).fingerprint
    )


def test_raising_the_version_of_a_stage_changes_its_fingerprint(monkeypatch):
    before = Number().fingerprint
    monkeypatch.setattr(Number, "VERSION", 2)
    assert Number().fingerprint != before


def test_more_gpus_do_not_change_the_fingerprint():
    stage = cong(transition("qwen", weak="3B", strong="7B", scale=scale("paper")), alpha=0.5, beta=0.5)
    demands = {str(stage.demand(load_profile(name))) for name in ("laptop", "l40x4", "h200x8")}
    assert len(demands) == 3
    assert not set(Resources.__dataclass_fields__) & set(stage.__dataclass_fields__)


def test_fingerprints_are_the_same_in_every_process():
    code = (
        "from cong.methods import cong, transition; from cong.scales import scale;"
        "print(cong(transition('qwen', weak='3B', strong='7B', scale=scale('tiny')), alpha=0.4, beta=0.5).fingerprint)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_alpha_outside_of_its_range_is_named():
    with pytest.raises(ValueError, match=r"alpha = 1.5 is not in \[0, 1\]"):
        ContrastiveGenerate(post=Number(), pre=Number(value=2), prompts=Number(value=3), alpha=1.5, max_new_tokens=4)
