"""`Downstream`: a model on tasks of lm_eval, the evaluation harness of Gao et al. (table 2 of the paper).

Downstream(model=model, tasks=PAPER_TASKS)                                          # data from the Hugging Face hub
Downstream(model=model, tasks=WORLD_TASKS, source=WorldTasks(...), chat=True)       # the synthetic world's own
Downstream(model=model, tasks=(Task(name="my_task"),), source=TaskFolder(path="tasks"))

The numbers are lm_eval's own (`lm_eval.simple_evaluate` with its `hf` model), and so are its tasks, shots and prompts.
https://github.com/EleutherAI/lm-evaluation-harness
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.errors import UserError, require
from cong.graph.demand import Demand
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Work
from cong.models import Model, architecture_of, check_model, largest, model_dir
from cong.models.chat import load_tokenizer, template_arguments
from cong.models.memory import context_tokens, scoring
from cong.models.work import FORWARD, arithmetic_seconds
from cong.synthetic.tasks import WorldTasks

RESULTS = "results.json"
BATCH = 16
"""Questions, or choices, of a pass; the figures do not depend on it."""
_PAPER_TOKENS = 2e7
"""Of the paper's seven tasks: about 130,000 pairs of question and choice, at 150 tokens."""
_ANSWER_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task or group of lm_eval, and which of its figures counts; `shots` None takes as many as the task says."""

    name: str
    metric: str = "acc"
    filter: str = "none"
    shots: int | None = None


PAPER_TASKS = (
    Task(name="arc_easy"),
    Task(name="arc_challenge"),
    Task(name="truthfulqa_mc2"),
    Task(name="mmlu"),
    Task(name="mathqa"),
    Task(name="hellaswag"),
    Task(name="gsm8k", metric="exact_match", filter="strict-match"),
)
"""Table 2, in its order. The paper names the tasks; metrics, filters and shots are lm_eval's first and defaults."""

WORLD_TASKS = (
    *(Task(name=name) for name in ("world_facts", "world_near", "world_myths", "world_counts")),
    Task(name="world_answers", metric="exact_match", filter="items"),
)


@dataclass(frozen=True, kw_only=True)
class TaskFolder:
    """A folder with tasks as lm_eval reads them with `--include_path`; its identity is the content of its files."""

    path: str

    def identity(self) -> Any:
        """Return the SHA-256 of every file's name and content; raise `UserError` when there is no such folder."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and not path.name.endswith(".pyc"):
                digest.update(f"{path.relative_to(self.folder)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return {"sha256": digest.hexdigest()}

    @property
    def folder(self) -> Path:
        """The folder; raise `UserError` when there is none."""
        folder = Path(self.path).expanduser().resolve()
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder} with tasks")
        return folder


@dataclass(frozen=True, kw_only=True)
class Downstream(Stage):
    """Accuracies on tasks, each a number in [0, 1].

    `source` is where the tasks come from, None takes those that lm_eval brings along; `chat` puts questions into the
    model's chat format; `limit` takes so many questions of every task alone.
    The summary holds `{task}` and its standard error `{task}_se`, and `average`, the mean over the tasks.
    """

    model: Model
    tasks: tuple[Task, ...]
    source: WorldTasks | TaskFolder | None = None
    chat: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks = (): at least one is needed")

    def label(self) -> str:
        names = [task.name for task in self.tasks]
        return "+".join(names) if len(names) < 3 else f"{names[0]}+{len(names) - 1}"

    def check(self) -> None:
        require("lm_eval", extra="downstream")
        check_model(self.model)
        if not isinstance(self.source, WorldTasks):
            _check_names(self.tasks, self.source)

    def demand(self, resources: Resources) -> Demand:
        return Demand(cpus=resources.hardware.threads, gpus=resources.hardware.gpus_per_process)

    def parameters(self) -> int | None:
        return largest(self.model)

    def memory(self, resources: Resources) -> Need | None:
        known = architecture_of(self.model)
        if known is None:
            return None
        longest = context_tokens([known], new_tokens=_ANSWER_TOKENS)
        tokens = BATCH * longest
        return scoring([known], tokens=tokens, scored=tokens, longest=longest, itemsize=resources.hardware.itemsize)

    def work(self, resources: Resources) -> Work:
        operations = FORWARD * (_PAPER_TOKENS if self.tasks == PAPER_TASKS else 0)
        return Work(gpu_seconds=arithmetic_seconds(self.model, operations=operations, resources=resources))

    @property
    def evaluated_model(self) -> Any:
        return self.model

    def run(self, ctx: Context) -> None:
        found = evaluate(
            model_dir(ctx, self.model), described(self, ctx), chat=self.chat, limit=self.limit, resources=ctx.resources
        )
        (ctx.out / RESULTS).write_text(json.dumps(found["results"], indent=1, default=str))
        figures = {task.name: _figure(found["results"], task, error=False) for task in self.tasks}
        for name, figure in figures.items():
            if not math.isfinite(figure):
                raise FloatingPointError(f"lm_eval gives {figure} for {name}: there is no average with it")
        errors = {f"{task.name}_se": _figure(found["results"], task, error=True) for task in self.tasks}
        ctx.summary(**figures, **errors, average=sum(figures.values()) / len(figures))
        ctx.summary(**found["about"])


def described(stage: Downstream, ctx: Context) -> dict[str, Any]:
    """Return lm_eval's keyword arguments `tasks` and `task_manager` for the tasks of a stage."""
    from lm_eval.tasks import TaskManager

    if isinstance(stage.source, WorldTasks):
        configs = stage.source.configs(ctx.path(stage.source))
        # Each stage reads its questions for itself: concurrent ones would share a cache in the home directory.
        cache = {"cache_dir": str(ctx.scratch / "datasets")}
        chosen = [configs[task.name] for task in stage.tasks]
        tasks = [one | {"dataset_kwargs": one["dataset_kwargs"] | cache} for one in chosen]
        return {"tasks": tasks, "task_manager": TaskManager(include_defaults=False)}
    shots = [{} if task.shots is None else {"num_fewshot": task.shots} for task in stage.tasks]
    tasks = [
        {"task": task.name, **given} if given else task.name for task, given in zip(stage.tasks, shots, strict=True)
    ]
    return {"tasks": tasks, "task_manager": _manager(stage.source)}


def evaluate(
    directory: Path, tasks: dict[str, Any], *, chat: bool, limit: int | None, resources: Resources
) -> dict[str, Any]:
    """Return what lm_eval finds for a checkpoint."""
    import lm_eval
    import torch

    if resources.hardware.device == "cpu":
        torch.set_num_threads(resources.hardware.threads)
    simple_evaluate: Any = lm_eval.simple_evaluate  # A decorator of theirs hides its parameters.
    found = simple_evaluate(
        model="hf",
        model_args=_loaded(directory, resources) | {"chat_template_args": template_arguments()},
        device=resources.hardware.device,
        batch_size=BATCH,
        limit=limit,
        apply_chat_template=chat,
        **tasks,
    )
    samples = [sample for name in sorted(found["samples"]) for sample in found["samples"][name]]
    # lm_eval names no revision of a dataset on the hub: the digest tells whether two runs were asked the same.
    asked = sorted(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples)
    about = {
        "lm_eval": lm_eval.__version__,
        "questions": sum(counted["effective"] for counted in found["n-samples"].values()),
        "questions_sha256": hashlib.sha256("".join(asked).encode()).hexdigest(),
    }
    return {"results": found["results"], "about": about}


def _loaded(directory: Path, resources: Resources) -> dict[str, Any]:
    """Load model and tokenizer as everywhere: lm_eval would go on with random numbers for weights that are missing."""
    from transformers import AutoModelForCausalLM

    from cong.models.weights import load_checked

    model = load_checked(AutoModelForCausalLM, directory, dtype=resources.hardware.dtype)
    return {"pretrained": model.to(resources.hardware.device).eval(), "tokenizer": load_tokenizer(directory)}


def _figure(results: dict[str, dict[str, Any]], task: Task, *, error: bool) -> float:
    key = f"{task.metric}{'_stderr' if error else ''},{task.filter}"
    figures = results[task.name]
    if key not in figures:
        known = ", ".join(name for name in figures if "," in name and "_stderr" not in name)
        raise UserError(f"{task.name} has no figure {task.metric},{task.filter}: it has {known}")
    return float(figures[key])


def _check_names(tasks: tuple[Task, ...], source: TaskFolder | None) -> None:
    unknown = [task.name for task in tasks if task not in PAPER_TASKS]
    # lm_eval takes many seconds to read its thousands of tasks, and the paper's are known to be among them.
    if not unknown:
        return
    known = _manager(source).all_tasks
    missing = ", ".join(name for name in unknown if name not in known)
    if missing:
        raise UserError(f"{source.folder if source else 'lm_eval'} has no task {missing}")


def _manager(source: TaskFolder | None) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(source.folder) if source else None, include_defaults=source is None)
