"""How rows become tokens, and tokens steps."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_training_tiny import make_model, texts

from cong.training.order import row_order
from cong.training.rows import common_prefix, completion_rows, preference_rows


def test_declaring_a_training_imports_nothing_heavy() -> None:
    code = "import sys, cong.training; print(*{'torch', 'transformers', 'trl', 'ray', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_model(tmp_path_factory.mktemp("model")).path)


def test_every_epoch_holds_every_row_and_every_step_is_full() -> None:
    order = row_order(lengths=list(range(10)), epochs=2, global_batch_size=4, seed=0)
    assert len(order) == 24
    assert set(order[:12]) == set(order[12:]) == set(range(10))
    assert order[:12] != order[12:]
    assert row_order(lengths=list(range(10)), epochs=2, global_batch_size=4, seed=1) != order


def test_fewer_rows_than_a_global_batch_still_make_a_full_step() -> None:
    order = row_order(lengths=[3, 1], epochs=1, global_batch_size=5, seed=0)
    assert sorted(order) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


def test_rows_of_a_step_are_sorted_by_length_and_their_set_does_not_depend_on_it() -> None:
    lengths = [5, 9, 2, 7, 1, 8, 3, 6]
    order = row_order(lengths=lengths, epochs=1, global_batch_size=4, seed=3)
    flat = row_order(lengths=[1] * 8, epochs=1, global_batch_size=4, seed=3)
    for start in (0, 4):
        step = [lengths[row] for row in order[start : start + 4]]
        assert step == sorted(step, reverse=True)
        assert set(order[start : start + 4]) == set(flat[start : start + 4])


def test_sft_tokens_and_labels_equal_trls_own_preparation(tokenizer, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = [{**row, "response": row["chosen"]} for row in texts(rows=12)]
    turns = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["response"]}],
        }
        for row in rows
    ]
    config = SFTConfig(output_dir=str(tmp_path), max_length=24, use_cpu=True, bf16=False, report_to="none")
    model = make_model(tmp_path / "model").path
    trl = SFTTrainer(model, args=config, train_dataset=Dataset.from_list(turns), processing_class=tokenizer)
    ours = completion_rows(tokenizer, rows, max_length=24)
    assert trl.train_dataset is not None
    assert [ids.tolist() for ids in ours.columns["input_ids"]] == list(trl.train_dataset["input_ids"])  # pyright: ignore
    assert [ids.tolist() for ids in ours.columns["labels"]] == list(trl.train_dataset["labels"])  # pyright: ignore
    assert ours.counts["rows_truncated"] > 0


def test_only_the_response_and_its_end_of_turn_are_learned(tokenizer) -> None:
    rows = completion_rows(tokenizer, [{"prompt": "ban dur", "response": "kin lot"}], max_length=99)
    learned = [token for token in rows.columns["labels"][0] if token != -100]
    assert tokenizer.decode(learned) == "kin lot<|im_end|>\n"


def test_a_conversation_of_several_turns_is_a_prompt(tokenizer) -> None:
    turns = [
        {"role": "user", "content": "ban"},
        {"role": "assistant", "content": "dur"},
        {"role": "user", "content": "kin"},
    ]
    rows = completion_rows(tokenizer, [{"messages": turns, "response": "lot"}], max_length=99)
    learned = [token for token in rows.columns["labels"][0] if token != -100]
    assert tokenizer.decode(learned) == "lot<|im_end|>\n"
    assert "dur" in tokenizer.decode(rows.columns["input_ids"][0])


def test_a_prompt_that_fills_the_maximum_length_is_left_out_and_counted(tokenizer) -> None:
    rows = [{"prompt_id": "a", "prompt": "ban " * 40, "chosen": "kin", "rejected": "lot"}, {**texts(rows=1)[0]}]
    made = preference_rows(tokenizer, rows, max_length=32)
    assert made.columns["prompt_id"] == ["p0"]
    assert (made.counts["rows"], made.counts["rows_too_long"]) == (1, 1)


def test_common_prefix_ends_at_the_first_difference() -> None:
    assert common_prefix(np.array([1, 2, 3]), np.array([1, 2, 4, 5])) == 2
    assert common_prefix(np.array([1, 2]), np.array([1, 2, 3])) == 2
