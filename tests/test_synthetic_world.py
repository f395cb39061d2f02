"""The world's knowledge, prompts and corpus are functions of its fields and of nothing else."""

import hashlib
import os
import subprocess
import sys

import pytest

from cong.synthetic.world import World, make_documents, make_prompts, read_prompt

DIGEST = """
import hashlib
from cong.synthetic.world import World, make_documents, make_prompts
world = World(seed=3)
texts = repr((world.right, world.myths, world.bias))
texts += repr(make_prompts(world, split="train", count=50, seed=1)) + repr(make_documents(world, count=50, seed=1))
print(hashlib.sha256(texts.encode()).hexdigest())
"""


def run_python(code: str, *, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_processes_with_different_hash_seeds_see_the_same_world():
    assert run_python(DIGEST, hash_seed="1") == run_python(DIGEST, hash_seed="2")


def test_prompts_and_documents_stay_what_they_were():
    world = World(seed=0)
    prompts = make_prompts(world, split="train", count=100, seed=0)
    documents = make_documents(world, count=100, seed=0)
    digest = hashlib.sha256(repr((prompts, documents)).encode()).hexdigest()
    assert digest.startswith("e7186bec145d"), "the corpus changed: stored models and results no longer belong to it"


def test_building_a_world_imports_no_heavy_library():
    code = "import sys, cong.synthetic.world, cong.synthetic.reward, cong.synthetic.models\n"
    code += "print(sorted({'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules)))"
    assert run_python(code, hash_seed="0") == "[]"


def test_another_seed_makes_another_world():
    assert World(seed=0).right != World(seed=1).right
    assert World(seed=0).bias != World(seed=1).bias


def test_train_and_heldout_prompts_are_disjoint_and_distinct():
    world = World(categories=3, attributes=3)
    rows = {split: make_prompts(world, split=split, count=len(world.splits[split]), seed=5) for split in world.splits}
    texts = {split: {row["prompt"] for row in some} for split, some in rows.items()}
    assert not texts["train"] & texts["heldout"]
    assert {split: len(some) for split, some in texts.items()} == {split: len(some) for split, some in rows.items()}
    assert len(texts["train"] | texts["heldout"]) == len(world.prompts)


def test_no_pretraining_document_is_about_a_heldout_prompt():
    world = World(categories=2, attributes=3)
    heldout = {world.prompts[index] for index in world.splits["heldout"]}
    assert not heldout & {document.prompt for document in make_documents(world, count=500, seed=0)}
    assert heldout >= {d.prompt for d in make_documents(world, count=50, seed=0, split="heldout")}


def test_a_prompt_id_names_one_prompt_whatever_the_count_and_the_seed():
    world = World(categories=2, attributes=3)
    seen: dict[str, str] = {}
    for count, seed in [(50, 0), (200, 0), (200, 1)]:
        rows = make_prompts(world, split="train", count=count, seed=seed)
        assert len({row["prompt_id"] for row in rows}) == count
        assert all(seen.setdefault(row["prompt_id"], row["prompt"]) == row["prompt"] for row in rows)


def test_a_document_depends_on_its_number_only():
    world = World()
    whole = make_documents(world, count=30, seed=4)
    assert make_documents(world, count=10, seed=4, start=20) == whole[20:]


def test_a_subject_shares_no_right_item_with_another_and_its_myths_are_wrong():
    world = World()
    items = [item for some in world.right.values() for item in some]
    assert len(set(items)) == len(items)
    for subject in world.subjects:
        assert not set(world.myths[subject]) & set(world.right[subject])


def test_most_subjects_have_a_myth_that_the_corpus_repeats_more_often_than_the_truth():
    world = World()
    assert sum(bias < 0 for bias in world.bias.values()) > len(world.subjects) / 2


def test_prompts_can_be_read_back():
    world = World()
    for row in make_prompts(world, split="heldout", count=200, seed=0):
        first, second = read_prompt(row["prompt"])
        assert first.subject in world.subjects
        assert second.subject in world.subjects
        assert first.subject != second.subject


@pytest.mark.parametrize("prompt", ["", "name two old birds", "name nine old birds and two heavy tools"])
def test_a_text_that_is_no_prompt_is_refused(prompt):
    with pytest.raises(ValueError, match="not of the form"):
        read_prompt(prompt)


@pytest.mark.parametrize("fields", [{"categories": 13}, {"attributes": 1}, {"items": 3}])
def test_a_world_out_of_range_is_refused(fields):
    with pytest.raises(ValueError, match="allowed are"):
        World(**fields)


def test_more_prompts_than_there_are_is_refused():
    with pytest.raises(ValueError, match="allowed are 1 to"):
        make_prompts(World(categories=1, attributes=2), split="heldout", count=1000, seed=0)
