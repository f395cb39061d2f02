"""Experiment files and the command line: axes, plans, and every bad input as one clear line."""

import json
import subprocess
import sys
import time
from pathlib import Path

import commands
import pytest

from cong.errors import UserError
from cong.experiment import load, parse

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "experiments" / "quickstart.py"


def cong(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    import os

    command = [sys.executable, "-m", "cong.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, timeout=120)


def test_axes_are_the_keyword_arguments_of_cells():
    experiment = load(QUICKSTART)
    assert {"alpha", "beta", "seeds"} <= set(experiment.axes)
    assert experiment.settings(["alpha=0.3", "seeds=0,1,2"]) == {"alpha": 0.3, "seeds": (0, 1, 2)}


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [("3", int, 3), ("0.5", float, 0.5), ("x", str, "x"), ("true", bool, True), ("1,2", tuple[float, ...], (1.0, 2.0))],
)
def test_values_are_read_as_the_type_of_their_axis(text, annotation, value):
    assert parse(text, annotation) == value


@pytest.mark.parametrize(("text", "annotation"), [("x", int), ("", float), ("maybe", bool), ("1,x", tuple[int, ...])])
def test_a_value_of_the_wrong_type_is_refused(text, annotation):
    with pytest.raises(ValueError, match=r"neither true nor false|is not of type"):
        parse(text, annotation)


def test_two_cells_of_one_name_are_refused(tmp_path):
    path = tmp_path / "twins.py"
    path.write_text(
        "import toy\nfrom cong.experiment import Cell\n"
        "def cells(scale):\n    return [Cell(stage=toy.Number(), axes={'a': 1})] * 2\n"
    )
    from cong.scales import scale

    with pytest.raises(UserError, match="two cells are called a=1"):
        load(path).cells(scale("tiny"), {})


def _bad_inputs(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    files = {
        "raises.py": "def cells(scale):\n    return 1 / 0\n",
        "no_cells.py": "def cells(scale):\n    return [1]\n",
        "broken.py": "def cells(scale:\n",
        "missing.py": _experiment('LocalModel(path="/no/such/checkpoint")', 'LocalModel(path="/no/such/checkpoint")'),
        "two_tokenizers.py": _experiment('small.small_model("qwen", "3B", 0)', 'small.small_model("llama", "3B", 0)'),
        "duplicate.py": _experiment(*_PAIR, prompts=str(tmp_path / "duplicate.jsonl")),
        "empty.py": _experiment(*_PAIR, prompts=str(tmp_path / "empty.jsonl")),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    row = json.dumps({"prompt_id": "a", "prompt": "hello"})
    (tmp_path / "duplicate.jsonl").write_text(f"{row}\n{row}\n")
    (tmp_path / "empty.jsonl").write_text("")
    run, quickstart = "run", str(QUICKSTART)
    store = ["--store", str(tmp_path / "store")]
    return {
        "unknown axis": ([run, quickstart, "--set", "gamma=1", *store], "unknown axis 'gamma'"),
        "no value": ([run, quickstart, "--set", "alpha", *store], "write KEY=VALUE"),
        "alpha above 1": ([run, quickstart, "--set", "alpha=1.5", *store], "alpha = 1.5 is not in [0, 1]"),
        "alpha no number": ([run, quickstart, "--set", "alpha=high", *store], "'high' is not of type float"),
        "unknown profile": ([run, quickstart, "--profile", "moon", *store], "unknown profile 'moon'"),
        "unknown scale": ([run, quickstart, "--scale", "huge", *store], "unknown scale 'huge'"),
        "unknown flag": ([run, quickstart, "--fast"], "No such option: --fast"),
        "unknown stage to force": ([run, quickstart, "--force", "Nonsense", *store], "no stage of this experiment"),
        "no experiment file": ([run, "experiments/nothing.py", *store], "there is no experiment file"),
        "experiment that raises": ([run, str(tmp_path / "raises.py"), *store], "line 2: ZeroDivisionError"),
        "cells that are none": ([run, str(tmp_path / "no_cells.py"), *store], "must return a list of Cell"),
        "infinite beta": ([run, quickstart, "--set", "beta=inf", *store], "no canonical form for inf"),
        "experiment with a syntax error": ([run, str(tmp_path / "broken.py"), *store], "SyntaxError"),
        "read-only store": ([run, quickstart, "--store", "/proc/store"], "the store /proc/store cannot be written"),
        "missing checkpoint": ([run, str(tmp_path / "missing.py"), *store], "missing checkpoint: /no/such/checkpoint"),
        "two tokenizers": ([run, str(tmp_path / "two_tokenizers.py"), *store], "the weak pair has two tokenizers"),
        "duplicate prompt ids": ([run, str(tmp_path / "duplicate.py"), *store], "prompt_id 'a' is not unique"),
        "empty prompts": ([run, str(tmp_path / "empty.py"), *store], "holds no prompts"),
        "paper scale without a GPU": ([run, quickstart, "--scale", "paper", *store], "needs a GPU at scale paper"),
        "no store to look at": (["status", "--store", str(tmp_path / "nowhere")], "there is no store"),
    }


_PAIR = ('small.small_model("qwen", "3B", 0)', 'small.small_model("qwen", "3B", 1)')


def _experiment(post: str, pre: str, *, prompts: str | None = None) -> str:
    source = f'PromptFile(file=LocalFile(path="{prompts}"))' if prompts else "small.small_scale().heldout(0)"
    return (
        f'import sys\nsys.path.insert(0, "{ROOT / "tests"}")\nimport small\n'
        "from cong.experiment import Cell\nfrom cong.generation import ContrastiveGenerate\n"
        "from cong.models import LocalModel\nfrom cong.data.prompts import LocalFile, PromptFile\n"
        f"def cells(scale):\n    stage = ContrastiveGenerate(post={post}, pre={pre}, prompts={source}, alpha=0.5, "
        "max_new_tokens=4)\n    return [Cell(stage=stage, axes={'a': 1})]\n"
    )


@pytest.mark.parametrize("case", [
    "unknown axis", "no value", "alpha above 1", "alpha no number", "unknown profile", "unknown scale", "unknown flag",
    "unknown stage to force", "no experiment file", "experiment that raises", "experiment with a syntax error",
    "cells that are none", "infinite beta",
    "read-only store", "missing checkpoint", "two tokenizers", "duplicate prompt ids", "empty prompts",
    "paper scale without a GPU", "no store to look at",
])  # fmt: skip
def test_a_bad_input_is_one_clear_line_and_exit_code_2(case, tmp_path):
    arguments, message = _bad_inputs(tmp_path)[case]
    started = time.monotonic()
    done = cong(*arguments)
    seconds = time.monotonic() - started
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    print(f"{case}: {seconds:.2f} s")


def test_a_plan_imports_neither_torch_nor_ray(tmp_path):
    code = (
        "import sys; from cong.cli.app import app; "
        f"app(['plan', {str(QUICKSTART)!r}, '--store', {str(tmp_path / 'none')!r}], standalone_mode=False); "
        "print([name for name in ('torch', 'ray', 'transformers', 'mlflow', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "ContrastiveGenerate(alpha=0.3)" in done.stdout
    assert not (tmp_path / "none").exists()


def test_the_paper_scale_is_planned_without_any_network(tmp_path):
    arguments = ["plan", str(QUICKSTART), "--scale", "paper", "--profile", "l40x4", "--store", str(tmp_path)]
    done = cong(*arguments, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert "largest stage needs 16 CPU 4 GPU" in done.stdout


def test_the_paper_scale_without_a_hub_names_the_local_alternative(tmp_path):
    arguments = ["run", str(QUICKSTART), "--scale", "paper", "--profile", "l40x4", "--store", str(tmp_path)]
    done = cong(*arguments, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "set CONG_MIRROR=DIR" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unreachable_cluster_is_one_clear_line(tmp_path):
    done = cong("run", str(QUICKSTART), "--address", "127.0.0.1:1", "--store", str(tmp_path))
    assert done.returncode == 2
    assert "no connection to Ray at 127.0.0.1:1" in done.stderr.splitlines()[-1]


def test_an_unreachable_tracker_is_one_clear_line(tmp_path):
    uri = "http://user:hunter2@127.0.0.1:1"
    (tmp_path / "alone.toml").write_text("[cluster]\nray = false\n")
    where = ["--store", str(tmp_path), "--profile", str(tmp_path / "alone.toml")]
    code, output = commands.cong("run", str(QUICKSTART), *where, env={"MLFLOW_TRACKING_URI": uri})
    assert code == 2
    assert "MLflow at http://127.0.0.1:1 does not answer" in output.splitlines()[-1]
    assert "hunter2" not in output


def test_the_doctor_looks_at_everything_and_names_what_to_do(tmp_path):
    code, output = commands.cong("doctor", "--store", str(tmp_path), env={"HF_HUB_OFFLINE": "1"})
    assert code == 0, output
    for name in ("python", "torch", "ray", "devices", "store", "tracking", "cluster"):
        assert f"ok    {name}" in output
    assert "note  hub" in output
    assert "CONG_MIRROR" in output


def test_the_status_counts_the_stages_of_a_store(small_run):
    root = small_run.store.root
    (root / "SFT" / "lr=1-00000000").mkdir()
    done = cong("status", "--store", str(root))
    (root / "SFT" / "lr=1-00000000").rmdir()
    assert done.returncode == 0
    assert "5 of 5" in done.stdout
    # Other tests may have added stages to those of the run.
    finished = len(list(root.glob("[A-Z]*/*/_SUCCESS")))
    assert finished >= len(small_run.plan.stages)
    assert done.stdout.strip().endswith(f"stages in the store: {finished} finished, 1 unfinished")
