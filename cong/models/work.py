"""Time and disk that models take, by arithmetic: operations in training and scoring, bytes read in decoding.

It is an estimate of the order of magnitude: how long responses get, and how well the hardware is used, are assumed.
"""

from cong.graph.need import GB
from cong.graph.resources import Resources
from cong.models.architecture import Architecture
from cong.models.handles import Model, architecture_of

PROMPT_TOKENS, RESPONSE_TOKENS = 200, 400
"""Mean lengths that are assumed."""
ROW_TOKENS = PROMPT_TOKENS + RESPONSE_TOKENS
ARITHMETIC_SHARE, BANDWIDTH_SHARE = 0.4, 0.5
"""Shares of a GPU's peak rates that are assumed to be reached."""
L40 = {"tflops": 181.0, "gb_per_second": 864.0}
"""What is assumed where a profile has no GPU: the paper's, by its data sheet (bfloat16, dense)."""
TRAINING, FORWARD = 8, 2
"""Operations per parameter and token: forward 2, backward 4, and forward once more under gradient checkpointing."""
WEIGHT_BYTES, TOKEN_BYTES = 2, 12
"""Bytes of a saved parameter (bfloat16), and of a response's token: its text, its id and its columns."""


def arithmetic_seconds(model: Model, *, operations: float, resources: Resources) -> float:
    """Return the seconds of one GPU for so many operations per parameter of a model."""
    tflops, _ = rates(resources)
    return operations * parameters_of(model) / (ARITHMETIC_SHARE * tflops * 1e12)


def decoding_seconds(models: tuple[Model, ...], *, rows: int, resources: Resources) -> float:
    """Return the seconds of one GPU for decoding rows with all of the models, prefill included.

    Every step of an actor reads the weights once, and the keys and values of all its rows.
    """
    slots, context = resources.decoding.rows_at_a_time, PROMPT_TOKENS + RESPONSE_TOKENS / 2
    per_row_and_step = sum(_step_bytes(architecture_of(model), slots=slots, context=context) for model in models)
    _, bandwidth = rates(resources)
    reading = rows * RESPONSE_TOKENS * per_row_and_step / (BANDWIDTH_SHARE * bandwidth * GB)
    operations = FORWARD * rows * PROMPT_TOKENS
    return reading + sum(arithmetic_seconds(model, operations=operations, resources=resources) for model in models)


def weight_bytes(model: Model) -> float:
    """Return the bytes of a saved model, 0 where its size is not known."""
    return WEIGHT_BYTES * parameters_of(model)


def response_bytes(rows: int) -> float:
    """Return the bytes of so many responses on disk."""
    return rows * RESPONSE_TOKENS * TOKEN_BYTES


def parameters_of(model: Model) -> int:
    """Return the number of parameters, 0 where it is not known."""
    known = architecture_of(model)
    return known.parameters if known else 0


def rates(resources: Resources) -> tuple[float, float]:
    """Return TFLOP/s and GB/s of a profile's GPU, or of an L40."""
    hardware = resources.hardware
    return hardware.gpu_tflops or L40["tflops"], hardware.gpu_bandwidth or L40["gb_per_second"]


def _step_bytes(model: Architecture | None, *, slots: int, context: float) -> float:
    """Return the bytes that a step reads for one of its rows."""
    if model is None:
        return 0.0
    return WEIGHT_BYTES * model.parameters / slots + context * model.cache_bytes_per_token(itemsize=WEIGHT_BYTES)
