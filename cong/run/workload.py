"""How many GPU-hours a plan takes and how much disk its results fill: arithmetic, before anything runs.

    work = reckon(plan.todo, resources)
    work.gpu_hours, work.disk_bytes, work.requests
    print(assumptions(resources))

Training and scoring are counted in floating-point operations, decoding in bytes read from a GPU's memory. It is an
estimate of the order of magnitude: how long responses get, and how well the hardware is used, are assumed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cong.data.benchmarks import BenchmarkPrompts
from cong.data.prompts import HubPrompts, Subset
from cong.evaluation import PAPER_TASKS, AlpacaEval2, ArenaHardJudge, Compare, Downstream
from cong.evaluation.contests import BaselineAnswers
from cong.generation import ContrastiveGenerate, Generate
from cong.graph.need import GB
from cong.graph.resources import Resources
from cong.graph.stage import Stage
from cong.models import HubModel, Model, architecture_of
from cong.models.architecture import Architecture
from cong.scoring import BestAgainstWorst, ConfidentPairs, PreferencePairs, Score
from cong.scoring.rewards import judge_models
from cong.synthetic.stages import SyntheticPrompts
from cong.training.finetune import Finetune
from cong.training.reference import FrozenPass

PROMPT_TOKENS, RESPONSE_TOKENS = 200, 400
"""Mean lengths that are assumed."""
ARITHMETIC_SHARE, BANDWIDTH_SHARE = 0.4, 0.5
"""Shares of a GPU's peak rates that are assumed to be reached."""
L40 = {"tflops": 181.0, "gb_per_second": 864.0}
"""What is assumed where a profile has no GPU: the paper's, by its data sheet (bfloat16, dense)."""
TRAINING, FORWARD = 8, 2
"""Operations per parameter and token: forward 2, backward 4, and forward once more under gradient checkpointing."""
WEIGHT_BYTES, TOKEN_BYTES = 2, 12
"""Bytes of a saved parameter (bfloat16), and of a response's token: its text, its id and its columns."""
DOWNSTREAM_TOKENS = 2e7
"""Of the paper's seven tasks: about 130,000 pairs of question and choice, at 150 tokens."""
PROMPTS = {
    ("ultrafeedback_binarized", "train_prefs"): 61_135,
    ("ultrafeedback_binarized", "test_prefs"): 2_000,
    ("gsm8k", "train"): 7_473,
    ("gsm8k", "test"): 1_319,
    ("hendrycks_math", "train"): 7_500,
    ("hendrycks_math", "test"): 5_000,
    ("mbpp", "train"): 374,
    ("mbpp", "test"): 500,
    ("openai_humaneval", "test"): 164,
    ("alpaca_eval", ""): 805,
    ("arena_hard", ""): 500,
}
"""Rows of the published data sets; a prompt that comes twice counts twice."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What stages take together."""

    gpu_seconds: float = 0.0
    disk_bytes: float = 0.0
    requests: int = 0
    """Questions to judges over HTTP."""
    stages: int = 0

    @property
    def gpu_hours(self) -> float:
        """Return the hours of one GPU."""
        return self.gpu_seconds / 3600

    def __add__(self, other: "Work") -> "Work":
        return Work(
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
            disk_bytes=self.disk_bytes + other.disk_bytes,
            requests=self.requests + other.requests,
            stages=self.stages + other.stages,
        )


def reckon(stages: Iterable[Stage], resources: Resources) -> Work:
    """Return what stages take together, models that are downloaded for them included in the disk."""
    found = list(stages)
    return sum((work(stage, resources) for stage in found), Work(disk_bytes=_downloads(found)))


def by_kind(stages: Iterable[Stage], resources: Resources) -> dict[str, Work]:
    """Return the same per kind of stage, the largest first."""
    kinds: dict[str, Work] = {}
    for stage in stages:
        kinds[stage.name] = kinds.get(stage.name, Work()) + work(stage, resources)
    return dict(sorted(kinds.items(), key=lambda item: -item[1].gpu_seconds))


def work(stage: Stage, resources: Resources) -> Work:
    """Return what one stage takes."""
    tokens = rows_of(stage) * (PROMPT_TOKENS + RESPONSE_TOKENS)
    if isinstance(stage, Finetune):
        passes = TRAINING * stage.epochs * stage.SEQUENCES
        seconds = _arithmetic(stage.model, passes * tokens, resources)
        return Work(gpu_seconds=seconds, disk_bytes=WEIGHT_BYTES * _parameters(stage.model), stages=1)
    if isinstance(stage, Downstream):
        asked = DOWNSTREAM_TOKENS if stage.tasks == PAPER_TASKS else 0
        return Work(gpu_seconds=_arithmetic(stage.model, FORWARD * asked, resources), stages=1)
    if isinstance(stage, FrozenPass):
        return Work(gpu_seconds=_arithmetic(stage.model, FORWARD * stage.SEQUENCES * tokens, resources), stages=1)
    if isinstance(stage, Generate | ContrastiveGenerate):
        written = rows_of(stage) * RESPONSE_TOKENS * TOKEN_BYTES
        return Work(gpu_seconds=_decoding(stage, resources), disk_bytes=written, stages=1)
    if isinstance(stage, Score):
        seconds = sum(_arithmetic(model, FORWARD * tokens, resources) for model in judge_models(stage.judge))
        return Work(gpu_seconds=seconds, disk_bytes=rows_of(stage) * RESPONSE_TOKENS * TOKEN_BYTES / 2, stages=1)
    if isinstance(stage, Compare):
        games = {AlpacaEval2: 1, ArenaHardJudge: 2}.get(type(stage.judge), 0)
        return Work(requests=games * rows_of(stage.responses), stages=1)
    return Work(stages=1)


def rows_of(stage: Stage) -> int:
    """Return how many rows a stage writes or is trained on, as far as that is known; else 0."""
    if isinstance(stage, SyntheticPrompts):
        return stage.count
    if isinstance(stage, HubPrompts | BenchmarkPrompts | BaselineAnswers):
        whole = PROMPTS.get(_data_set(stage), 0)
        return min(whole, getattr(stage, "count", None) or whole)
    if isinstance(stage, Subset):
        return min(stage.count, rows_of(stage.prompts))
    if isinstance(stage, Generate):
        return stage.samples * rows_of(stage.prompts)
    if isinstance(stage, ContrastiveGenerate):
        return rows_of(stage.prompts)
    if isinstance(stage, BestAgainstWorst):
        return rows_of(stage.scored) // max(getattr(getattr(stage.scored, "responses", None), "samples", 1), 1)
    for kind, name in (
        (Score, "responses"),
        (PreferencePairs, "chosen"),
        (ConfidentPairs, "pairs"),
        (Finetune, "data"),
        (FrozenPass, "data"),
    ):
        if isinstance(stage, kind):
            return rows_of(getattr(stage, name))
    return 0


def assumptions(resources: Resources) -> str:
    """Return what the numbers rest on, for a reader."""
    tflops, bandwidth = _rates(resources)
    hardware = f"{tflops:g} TFLOP/s and {bandwidth:g} GB/s per GPU"
    source = (
        f"profile {resources.name}"
        if resources.hardware.gpu_tflops
        else f"an L40, for profile {resources.name} names none"
    )
    return (
        f"{hardware} ({source}); {100 * ARITHMETIC_SHARE:g} % of the one reached in training and scoring, "
        f"{100 * BANDWIDTH_SHARE:g} % of the other in decoding; {PROMPT_TOKENS} tokens per prompt, {RESPONSE_TOKENS} a "
        f"response; training {TRAINING} and scoring {FORWARD} operations per parameter and token; weights saved in "
        "bfloat16; waiting, loading and the stages on CPUs are left out"
    )


def _data_set(stage: HubPrompts | BenchmarkPrompts | BaselineAnswers) -> tuple[str, str]:
    if isinstance(stage, BaselineAnswers):
        return stage.form, ""
    repo = stage.benchmark.repo if isinstance(stage, BenchmarkPrompts) else stage.repo
    return repo.split("/")[-1], stage.split


def _rates(resources: Resources) -> tuple[float, float]:
    """Return the TFLOP/s and the GB/s of a GPU."""
    return resources.hardware.gpu_tflops or L40["tflops"], resources.hardware.gpu_bandwidth or L40["gb_per_second"]


def _arithmetic(model: Model, operations_per_parameter: float, resources: Resources) -> float:
    tflops, _ = _rates(resources)
    return operations_per_parameter * _parameters(model) / (ARITHMETIC_SHARE * tflops * 1e12)


def _decoding(stage: Generate | ContrastiveGenerate, resources: Resources) -> float:
    """Every step of an actor reads the weights once, and the keys and values of all its rows."""
    models = [stage.model] if isinstance(stage, Generate) else [stage.post, stage.pre]
    rows, slots = rows_of(stage), stage.execution(resources).decoding.rows_at_a_time
    context = PROMPT_TOKENS + RESPONSE_TOKENS / 2
    per_row_and_step = sum(_step_bytes(architecture_of(model), slots=slots, context=context) for model in models)
    _, bandwidth = _rates(resources)
    reading = rows * RESPONSE_TOKENS * per_row_and_step / (BANDWIDTH_SHARE * bandwidth * GB)
    return reading + sum(_arithmetic(model, FORWARD * rows * PROMPT_TOKENS, resources) for model in models)


def _step_bytes(model: Architecture | None, *, slots: int, context: float) -> float:
    """Return the bytes that a step reads for one of its rows."""
    if model is None:
        return 0.0
    return WEIGHT_BYTES * model.parameters / slots + context * model.cache_bytes_per_token(itemsize=WEIGHT_BYTES)


def _parameters(model: Model) -> int:
    known = architecture_of(model)
    return known.parameters if known else 0


def _downloads(stages: list[Stage]) -> float:
    """Return the bytes of the hub's models that the stages name."""
    names = ("model", "post", "pre")
    judges = [model for stage in stages if isinstance(stage, Score) for model in judge_models(stage.judge)]
    used = [getattr(stage, name) for stage in stages for name in names if hasattr(stage, name)] + judges
    return sum(WEIGHT_BYTES * _parameters(model) for model in {model for model in used if isinstance(model, HubModel)})
