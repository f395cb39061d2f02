"""Methods and transitions: what they share, what crosses between families, and every experiment end to end."""

import ast
import dataclasses
import inspect
import itertools
import math
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import small
from toy import INLINE, run

from cong import methods
from cong.data import PAIRS, RESPONSES, SCORES, read_rows, write_rows
from cong.experiment import Results, collect, load
from cong.generation import ContrastiveGenerate
from cong.graph.plan import make_plan
from cong.graph.runner import Runner, StageFailed
from cong.graph.stage import Context, topological
from cong.graph.store import Store
from cong.launch import Job
from cong.report import Table, Text, write_report
from cong.scales import Scale, scale
from cong.training import DPO, WSPO

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 15


def between(
    family: str = "qwen", strong_family: str | None = None, *, weak: str = "1.5B", strong: str = "1.5B"
) -> methods.Transition:
    """Return a transition of the small world."""
    return methods.transition(family, strong_family=strong_family, weak=weak, strong=strong, scale=small.small_scale())


def run_experiment(path: Path, store: Store, settings: dict, tmp_path: Path, *, given: Scale | None = None) -> tuple:
    """Run an experiment of the small world in this process; return its results and the blocks of its report."""
    experiment = load(path)
    cells = experiment.cells(given or small.small_scale(), settings)
    plan = make_plan({cell.name: cell.stage for cell in cells}, store)
    try:
        Runner(store=store, resources=INLINE).run(plan)
    except StageFailed:
        assert all(cell.may_lack or store.is_complete(cell.stage) for cell in cells)
    results = collect(cells, store)
    blocks = experiment.report(results)
    write_report(tmp_path / "report", name="page", title="t", description="", blocks=blocks)
    return results, blocks


def table(blocks: list, title: str) -> dict[str, tuple[str, ...]]:
    """Return a table's rows by their first cell."""
    found = next(block for block in blocks if isinstance(block, Table) and block.title == title)
    return {row[0]: tuple(row[1:]) for row in found.rows}


def test_every_function_of_the_methods_is_at_most_15_lines_long():
    tree = ast.parse(inspect.getsource(methods))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {"cong", "safe_cong", "wspo", "staged"} <= set(lengths)
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_every_method_of_the_paper_runs_end_to_end_in_a_family_and_across(small_run, tmp_path):
    settings = {"families": ("qwen", "llama-qwen"), "weak": "1.5B", "strong": "1.5B", "orpo_weight": (0.5, 2.0)}
    results, blocks = run_experiment(ROOT / "experiments" / "methods.py", small_run.store, settings, tmp_path)
    one_model = ["Base, one model", "DPO", "ORPO", "SimPO", "ConG-S (self)", "ConG (self)"]
    overview = table(blocks, "Reward on held-out prompts, greedy")
    assert list(overview) == [
        "Base", "Weak SFT (pre)", "Weak SFT (post)", "WeakTeacher", "AuxConf", "WSPO", "ConG-S", "ConG", *one_model
    ]  # fmt: skip
    assert all(re.fullmatch(r"-?\d\.\d\d \[.*\]", row[0]) for row in overview.values())
    assert all((row[1] == "") == (name in one_model) for name, row in overview.items())
    across = table(blocks, "llama to qwen, weak to strong")
    assert across["ConG"][3] == "51.7"
    assert across["WeakTeacher"][3:] == ("", "")
    # Among the six methods that the paper has across families, ConG is its first and Weak SFT its last.
    assert [across[name][4].split(" / ")[1] for name in ("ConG", "ConG-S", "Weak SFT (pre)")] == ["1", "2", "6"]
    orpo = {row.axes["orpo_weight"]: row.values["reward"] for row in results if row.axes["method"] == "ORPO"}
    assert set(orpo) == {0.5, 2.0}
    assert overview["ORPO"][0].startswith(f"{max(orpo.values()):.2f} ")
    assert len(table(blocks, "Search ranges")) == 1
    assert sum(isinstance(block, Text) and "Spearman" in block.text for block in blocks) == 3


def test_search_ranges_default_to_the_scale_and_enter_the_stage():
    t = between()
    assert methods.orpo(t).weight == t.scale.orpo["weight"]
    assert methods.orpo(t, weight=2.0) == dataclasses.replace(methods.orpo(t), weight=2.0)
    assert methods.simpo(t, gamma=1.6) == dataclasses.replace(methods.simpo(t), gamma=1.6)
    assert methods.simpo(t, beta=8.0).gamma == t.scale.simpo["gamma"]


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
        assert isinstance(stage.data, methods.Generate | ContrastiveGenerate)
        given = read_rows(small_run.store.directory(stage.data) / RESPONSES)
        assert weak_tokenizer.decode(given[0]["response_token_ids"]) == given[0]["response"]
        poisoned = tmp_path / stage.name
        poisoned.mkdir()
        write_rows(poisoned / RESPONSES, [row | {"response_token_ids": [1, 1, 1]} for row in given])

        def tokens(data: Path, stage=stage):
            located = {stage.data.fingerprint: data}
            ctx = Context(
                out=tmp_path,
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


def test_alpha_is_tuned_on_training_prompts_and_judged_on_held_out_ones(small_run, tmp_path):
    settings = {"families": ("qwen",), "sizes": ("1.5B",), "alphas": (0.2, 0.6), "prompts": 16}
    results, blocks = run_experiment(ROOT / "experiments" / "tune_alpha.py", small_run.store, settings, tmp_path)
    assert [result.values["prompts"] for result in _on(results, "training")] == [16, 16, 16]
    assert [result.values["prompts"] for result in _on(results, "held-out")] == [8, 8, 8]
    best = max(_on(results, "training"), key=lambda result: result.values["reward"]).axes["alpha"]
    ((alpha, reward, gain, distance, _),) = table(
        blocks, "Tuned alpha, and how far alignment moved the weak model"
    ).values()
    assert alpha == f"{best:g}"
    held_out = {result.axes["alpha"]: result.values["reward"] for result in _on(results, "held-out")}
    assert reward.startswith(f"{held_out[best]:.2f} ")
    assert float(gain.split()[0]) == pytest.approx(held_out[best] - held_out[1.0], abs=0.006)
    assert math.isfinite(float(distance.split()[0]))
    assert (tmp_path / "report" / "tune_alpha.png").stat().st_size > 1000


def test_the_model_gap_runs_both_paths_from_one_command(small_run, tmp_path):
    settings = {
        "weaks": ("1.5B",), "to_strong": "3B", "strongs": ("3B", "7B"), "path": ("1.5B", "3B", "7B"),
    }  # fmt: skip
    _, blocks = run_experiment(ROOT / "experiments" / "model_gap.py", small_run.store, settings, tmp_path)
    assert list(table(blocks, "The sizes before alignment")) == ["1.5B", "3B", "7B"]
    assert list(table(blocks, "Strong size varies")) == ["1.5B to 3B", "1.5B to 7B"]
    staged = table(blocks, "Staged path: every step's weak pair is the step before")
    assert staged["1.5B to 3B"] == table(blocks, "Weak size varies")["1.5B to 3B"]
    assert staged["3B to 7B"] != table(blocks, "Direct transition over the whole path")["1.5B to 7B"]
    assert blocks[-1].text.startswith("1.5B -> 3B -> 7B minus 1.5B -> 7B, ConG, paired by prompt: ")


def test_a_margin_without_pairs_is_named_in_the_table_of_the_safe_stage_two(small_run, tmp_path):
    store = _copy(small_run, tmp_path)
    settings = {
        "stage_one": ("1e-3x1",),
        "margins": (0.0, 1e9),
        "judges": ("student",),
        "weak": "1.5B",
        "strong": "1.5B",
    }
    results, blocks = run_experiment(ROOT / "experiments" / "safe_stage_two.py", store, settings, tmp_path)
    for decoding in ("greedy", "sampled"):
        gains = table(blocks, f"Reward of ConG-S, and what Stage II adds to it, {decoding}")
        assert gains["safe, student, margin 1e+09 - ConG-S"] == ("no pairs",)
        assert re.fullmatch(r"-?\d\.\d\d \[.*\]", gains["safe, student, margin 0 - ConG-S"][0])
    pairs = table(blocks, "Pairs, and the share in which chosen beats rejected")
    assert pairs["safe, student, margin 1e+09"] == ("no pairs",)
    counts = {name: int(row[0].split(":")[0]) for name, row in pairs.items() if row != ("no pairs",)}
    assert counts["safe, student, margin 0"] <= counts["safe, student, margin 0, swap"] <= counts["ConG"]
    assert not [result for result in results if "1e+09" in str(result.axes["method"]) and "decoding" in result.axes]


@pytest.mark.parametrize(
    ("experiment", "settings", "message"),
    [
        ("safe_stage_two", {"stage_one": ("fast",)}, "stage_one=fast: write learning rate x epochs"),
        ("methods", {"families": ("gpt",)}, "families=gpt: unknown gpt; there are qwen, llama, llama-qwen"),
    ],
)
def test_a_mistaken_axis_is_one_clear_line(experiment, settings, message):
    from cong.errors import UserError

    with pytest.raises(UserError, match=message):
        load(ROOT / "experiments" / f"{experiment}.py").cells(scale("tiny"), settings)


@pytest.mark.parametrize("experiment", ["methods", "model_gap", "tune_alpha", "safe_stage_two"])
def test_every_experiment_has_the_models_of_the_paper(experiment):
    cells = load(ROOT / "experiments" / f"{experiment}.py").cells(scale("paper"), {})
    assert len(topological([cell.stage for cell in cells])) > 50


def test_the_readmes_method_runs_as_it_stands_there(small_run, tmp_path):
    section = (ROOT / "README.md").read_text().split("### Adding a method")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    (tmp_path / "best_of_n.py").write_text(block[1])
    settings = {"n": (2, 3), "weak": "1.5B", "strong": "1.5B"}
    results, blocks = run_experiment(tmp_path / "best_of_n.py", small_run.store, settings, tmp_path)
    assert list(table(blocks, "Best of n")) == ["Base", "best of 2", "best of 3"]
    models = [result.cell.stage.scored.responses.model for result in results[1:]]  # pyright: ignore[reportAttributeAccessIssue]
    assert all(isinstance(model, DPO) for model in models)
    assert {stage.name for stage in topological(models)} <= {stage.name for stage in small_run.plan.stages}


def test_wspo_across_tokenizers_sums_what_each_model_says_of_the_text(small_run):
    stage = methods.wspo(between("llama", "qwen"))
    assert isinstance(stage, WSPO)
    run(small_run.store, stage)
    results = small_run.store.record(stage)["results"]
    assert results["rows"] + results["rows_unmatched"] == 48
    assert results["rows"] > 40
    assert math.isfinite(results["train_loss"])


def _on(results: Results, where: str) -> Results:
    return [result for result in results if result.axes.get("on") == where]


def _copy(small_run: Job, tmp_path: Path) -> Store:
    shutil.copytree(small_run.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("mlflow*", "mlartifacts"))
    return Store(tmp_path / "store")
