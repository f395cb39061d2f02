"""Methods and transitions: what they share, and what crosses between families."""

import ast
import dataclasses
import inspect
import itertools
import math
from collections import defaultdict
from pathlib import Path

import pytest
import small
from toy import INLINE, run

from cong import methods
from cong.data import PAIRS, RESPONSES, SCORES, read_rows, write_rows
from cong.generation import ContrastiveGenerate, Generate
from cong.graph.stage import Context, topological
from cong.methods import field, measures, proxy, rows, searching, transitions, weak_to_strong
from cong.scales import scale
from cong.training import WSPO

LONGEST = 15


def between(
    family: str = "qwen", strong_family: str | None = None, *, weak: str = "1.5B", strong: str = "1.5B"
) -> methods.Transition:
    """Return a transition of the small world."""
    return methods.transition(family, strong_family=strong_family, weak=weak, strong=strong, scale=small.small_scale())


def test_every_function_of_the_methods_is_at_most_15_lines_long():
    modules = (rows, field, searching, proxy, measures, transitions, weak_to_strong)
    trees = [ast.parse(inspect.getsource(module)) for module in modules]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {"cong", "safe_cong", "wspo", "staged", "cw_cong"} <= set(lengths)
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_search_ranges_default_to_the_scale_and_enter_the_stage():
    t = between()
    assert methods.orpo(t).weight == t.scale.orpo.weight
    assert methods.orpo(t, weight=2.0) == dataclasses.replace(methods.orpo(t), weight=2.0)
    assert methods.simpo(t, gamma=1.6) == dataclasses.replace(methods.simpo(t), gamma=1.6)
    assert methods.simpo(t, beta=8.0).gamma == t.scale.simpo.gamma


def test_wspo_matches_tokens_in_a_family_and_sums_across():
    assert methods.wspo(between("qwen")).matching == "tokens"
    assert methods.wspo(between("qwen", "qwen")).matching == "tokens"
    across = between("llama", "qwen")
    assert methods.wspo(across).matching == "sequence"
    methods.wspo(across).check()
    assert methods.wspo(across.self_aligned).matching == "tokens"
    assert across.weak.family == "llama"  # pyright: ignore[reportAttributeAccessIssue]
    assert across.strong.family == "qwen"  # pyright: ignore[reportAttributeAccessIssue]


def test_across_families_text_is_what_is_trained_on_and_token_ids_never_cross(small_run, tmp_path):
    from transformers import AutoTokenizer

    t = between("llama", "qwen")
    run(small_run.store, methods.cong(t, alpha=0.4, beta=0.5), methods.wspo(t))
    tokenizer = AutoTokenizer.from_pretrained(small_run.store.directory(t.strong) / "model")
    weak_tokenizer = AutoTokenizer.from_pretrained(small_run.store.directory(t.weak) / "model")
    for stage in (methods.cong_s(t, alpha=0.4), methods.wspo(t)):
        assert isinstance(stage.data, Generate | ContrastiveGenerate)
        given = read_rows(small_run.store.directory(stage.data) / RESPONSES)
        assert weak_tokenizer.decode(given[0]["response_token_ids"]) == given[0]["response"]
        poisoned = tmp_path / stage.name
        poisoned.mkdir()
        write_rows(poisoned / RESPONSES, [row | {"response_token_ids": [1, 1, 1]} for row in given])

        def tokens(data: Path, stage=stage):
            located = {stage.data.fingerprint: data}
            ctx = Context(
                out=tmp_path,
                root=tmp_path,
                resources=INLINE,
                locate=lambda item: located.get(item.fingerprint) or small_run.store.directory(item),
            )
            return stage.token_rows(ctx, tokenizer).columns["labels"]

        clean = tokens(small_run.store.directory(stage.data))
        texts = [tokenizer.decode(labels[labels != -100], skip_special_tokens=True).strip() for labels in clean]
        assert texts == [row["response"].strip() for row in given]
        assert [one.tolist() for one in tokens(poisoned)] == [one.tolist() for one in clean]
    pairs = read_rows(small_run.store.directory(methods.cong_pairs(t, alpha=0.4)) / PAIRS)
    assert set(pairs[0]) == {"prompt_id", "prompt", "chosen", "rejected"}


def test_the_labels_of_weak_teacher_equal_a_direct_computation_of_the_implicit_reward(small_run):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    t = between("qwen", "llama")
    pairs = methods.weak_teacher(t).data
    run(small_run.store, pairs)
    aligned, before = (small_run.store.directory(model) / "model" for model in (methods.dpo(t), t.weak))  # pyright: ignore[reportArgumentType]
    tokenizer = AutoTokenizer.from_pretrained(before)
    pair = [AutoModelForCausalLM.from_pretrained(path) for path in (aligned, before)]

    def logprob(model, prompt: str, row: dict) -> float:
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        answer = tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        answer += [tokenizer.eos_token_id] * (row["finish_reason"] == "stop")
        with torch.no_grad():
            logps = model(torch.tensor([asked + answer])).logits[0].double().log_softmax(-1)
        return sum(logps[len(asked) + n - 1, token].item() for n, token in enumerate(answer))

    rewards: dict[str, dict[str, float]] = defaultdict(dict)
    for row in read_rows(small_run.store.directory(pairs.scored) / SCORES):  # pyright: ignore[reportAttributeAccessIssue]
        after, ahead = (logprob(model, row["prompt"], row) for model in pair)
        rewards[row["prompt_id"]][row["response"]] = after - ahead
    found = read_rows(small_run.store.directory(pairs) / PAIRS)
    assert len(found) > 20
    for row in found:
        mine = rewards[row["prompt_id"]]
        assert mine[row["chosen"]] == pytest.approx(max(mine.values()), abs=1e-3)
        assert mine[row["rejected"]] == pytest.approx(min(mine.values()), abs=1e-3)
        assert row["chosen_reward"] == pytest.approx(mine[row["chosen"]], abs=1e-3)


def test_a_staged_path_makes_every_aligned_model_the_next_weak_pair():
    path = methods.staged(
        "qwen", sizes=("1.5B", "3B", "7B", "14B"), scale=small.small_scale(), alphas=(0.4,) * 3, beta=0.5
    )
    assert [model.size for model in (step.weak for step in path)] == ["1.5B", "3B", "7B"]  # pyright: ignore[reportAttributeAccessIssue]
    assert path[-1].strong.size == "14B"  # pyright: ignore[reportAttributeAccessIssue]
    assert path[0].weak_aligned == methods.dpo(path[0])
    for before, after in itertools.pairwise(path):
        assert after.weak == before.strong
        assert after.weak_aligned == methods.cong(before, alpha=0.4, beta=0.5)
        assert methods.cong_s(after, alpha=0.4).data.post == after.weak_aligned  # pyright: ignore[reportAttributeAccessIssue]


def test_every_step_of_a_staged_path_has_an_alpha_of_its_own():
    given = small.small_scale()
    path = methods.staged("qwen", sizes=("1.5B", "3B", "7B", "14B"), scale=given, alphas=(0.4, 0.9, 1.0), beta=0.5)
    assert path[1].weak_aligned == methods.cong(path[0], alpha=0.4, beta=0.5)
    assert path[2].weak_aligned == methods.cong(path[1], alpha=0.9, beta=0.5)
    with pytest.raises(ValueError, match="shorter"):
        methods.staged("qwen", sizes=("1.5B", "3B", "7B", "14B"), scale=given, alphas=(0.4, 0.9), beta=0.5)


def test_the_staged_path_and_the_direct_one_share_their_stages():
    path = methods.staged("qwen", sizes=("1.5B", "3B", "7B"), scale=small.small_scale(), alphas=(0.4, 0.4), beta=0.5)
    direct = methods.cong(between(weak="1.5B", strong="7B"), alpha=0.4, beta=0.5)
    staged = methods.cong(path[-1], alpha=0.4, beta=0.5)
    alone = [len(topological([stage])) for stage in (direct, staged)]
    together = topological([direct, staged])
    shared = set(topological([direct])) & set(topological([staged]))
    assert len(together) == sum(alone) - len(shared)
    names = sorted(stage.title for stage in shared)
    assert names == [
        "BestAgainstWorst",
        "BuildTokenizer(qwen)",
        "ContrastiveGenerate(alpha=0.4)",
        "DPO(beta=0.1,lr=0.001)",
        "Generate(T=0.8,n=5)",
        "Pretrain(qwen-1.5B,seed=0)",
        "Pretrain(qwen-7B,seed=0)",
        "ReferenceLogprobs",
        "Score(exact)",
        "SyntheticPrompts(train,n=48)",
    ]


def test_a_weak_model_that_alignment_did_not_move_has_distance_zero(small_run):
    t = between()
    moved, unmoved = (methods.alignment_distance(one) for one in (t, dataclasses.replace(t, aligned=t.weak)))
    run(small_run.store, moved, unmoved)
    assert small_run.store.record(unmoved)["results"]["reward"] == 0
    results = small_run.store.record(moved)["results"]
    rows = read_rows(small_run.store.directory(moved.scored) / SCORES)
    assert results["reward"] == pytest.approx(sum(row["reward"] for row in rows) / len(rows))
    assert results["reward"] != 0


def test_only_the_largest_tiny_model_learns_at_a_rate_of_its_own():
    rates = {size: scale("tiny").model("qwen", size, 0).learning_rate for size in ("1.5B", "3B", "7B", "14B")}  # pyright: ignore[reportAttributeAccessIssue]
    assert rates == {"1.5B": 6e-3, "3B": 6e-3, "7B": 6e-3, "14B": 3e-3}


def test_wspo_across_tokenizers_sums_what_each_model_says_of_the_text(small_run):
    stage = methods.wspo(between("llama", "qwen"))
    assert isinstance(stage, WSPO)
    run(small_run.store, stage)
    results = small_run.store.record(stage)["results"]
    assert results["rows"] + results["rows_unmatched"] == 48
    assert results["rows"] > 40
    assert math.isfinite(results["train_loss"])
