"""How many bytes one process of a stage needs at its peak: arithmetic on a model's numbers, without torch or a GPU.

    need = decoding([weak, weak], slots=64, new_tokens=2048, itemsize=2)
    need = training(strong, tokens=4096, workers=4, zero="zero3", itemsize=2, checkpointing=True)
    print(need)    # 41.2 GB

A GB is 10^9 bytes. Weights, caches, gradients and optimizer states are exact, for they are tensors of known shapes;
activations and buffers are upper estimates, whose coefficients were fitted to peaks of transformers' Qwen2 layers.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cong.errors import UserError
from cong.graph.need import GB, Need
from cong.models.architecture import Architecture

if TYPE_CHECKING:
    from cong.graph.resources import Resources
    from cong.graph.stage import Stage

USABLE_GPU = 0.9
"""Share of a GPU that stages may fill; the CUDA context, NCCL and fragments of the allocator have the rest."""

MOST_SLOTS = 512
"""Beyond this the arithmetic of a step, not the reading of the weights, takes the time."""
CPU_SLOTS = 64
PROMPT_TOKENS = 512
"""Room for a prompt where nothing is known of the prompts; longer ones make the cache grow."""
PREFILL_TOKENS = 16384
"""Most padded tokens of one prefill pass."""
SCORE_COPIES = 8
"""Tensors of a row's vocabulary in float32 that are alive at once in a step."""
SCORED_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Most padded response tokens of one pass that scores given responses: their logits are alive at once."""
CLASSIFIED_TOKENS = {"cpu": 1024, "cuda": 8192}
"""Most padded tokens of one pass of a reward model over several conversations. On a CPU larger passes leave its caches:
8192 took longer than one conversation at a time."""

_LIVE, _BUCKET, _SUB_GROUP = 1e9, 5e8, 1e9
"""DeepSpeed's defaults: stage3_max_live_parameters, reduce_bucket_size and sub_group_size, in elements."""
_TILE_TOKENS, _TILE_WORDS = 4096, 32768
"""What TRL's fused head has logits of at once."""
_LOGIT_BYTES = 20
"""Bytes per token and word of a loss of whole logits: the logits, those selected, in float32, and two gradients."""


def decoding(
    models: Sequence[Architecture], *, slots: int, new_tokens: int, itemsize: int, shared: bool = False
) -> Need:
    """Return what an actor needs that decodes with one model, with a pair, or with an anchor and a pair.

    Weights of all models (of one less, when the pair is `shared`: an adapter on its base, the last model), `slots`
    times `slot_bytes`, and the activations of a prefill pass.
    """
    tokens = context_tokens(models, new_tokens=new_tokens)
    prefill = min(PREFILL_TOKENS, slots * tokens)
    return Need(
        weights=itemsize * sum(model.parameters for model in (models[:-1] if shared else models)),
        cache=slots * slot_bytes(models, tokens=tokens, new_tokens=new_tokens, itemsize=itemsize),
        working=prefill * max(_forward_bytes(model, itemsize) for model in models),
    )


def context_tokens(models: Sequence[Architecture], *, new_tokens: int) -> int:
    """Return the tokens of a slot: prompt and response, as far as the models have positions.

    A longer prompt makes the cache grow, and the engine halves its slots where there is no room for that.
    """
    return min(new_tokens + PROMPT_TOKENS, *(model.positions for model in models))


def slot_bytes(models: Sequence[Architecture], *, tokens: int, new_tokens: int, itemsize: int) -> int:
    """Return what one slot costs.

    Per model keys and values of all `tokens`, and `SCORE_COPIES` rows of scores in float32; once its bookkeeping.
    """
    cache = sum(tokens * model.cache_bytes_per_token(itemsize=itemsize) for model in models)
    scores = sum(SCORE_COPIES * 4 * model.vocabulary for model in models)
    vocabulary = max(model.vocabulary for model in models)
    return cache + scores + state_bytes(new_tokens=new_tokens, vocabulary=vocabulary, models=len(models))


def state_bytes(*, new_tokens: int, vocabulary: int, models: int) -> int:
    """Tokens, a log-probability of each model and a uniform number per step, and the mask of seen tokens."""
    return (new_tokens + 1) * (8 + 4 * models + 8) + vocabulary


def slots_in(models: Sequence[Architecture], *, tokens: int, new_tokens: int, itemsize: int, free_bytes: float) -> int:
    """Return the largest number of slots in [1, 512] that fit into `free_bytes`."""
    one = slot_bytes(models, tokens=tokens, new_tokens=new_tokens, itemsize=itemsize)
    return max(1, min(MOST_SLOTS, int(free_bytes) // one))


def scoring(
    models: Sequence[Architecture], *, tokens: int, scored: int, longest: int, itemsize: int, shared: bool = False
) -> Need:
    """Return what a process needs that scores given responses with models whose weights it holds whole.

    A pass has `tokens` prompt and response tokens at most; the logits of `scored` of them are alive, and of one row of
    `longest` tokens their copies in float32.
    """
    logits = min(tokens, scored) * itemsize + 2 * 4 * longest
    working = max(tokens * _forward_bytes(model, itemsize) + logits * model.vocabulary for model in models)
    weights = itemsize * sum(model.parameters for model in (models[:1] if shared else models))
    return Need(weights=weights, working=working)


def fused_scoring(model: Architecture, *, tokens: int, itemsize: int) -> Need:
    """Return what a process needs that scores responses with TRL's fused head, which makes logits tile by tile."""
    working = tokens * _forward_bytes(model, itemsize) + _tile(model, tokens) * itemsize
    return Need(weights=itemsize * model.parameters, working=working)


def distribution_scoring(models: Sequence[Architecture], *, tokens: int, scored: int, itemsize: int) -> Need:
    """Return what a process needs that reads `tokens` at a time, and has whole distributions of `scored` of them.

    Logits of every model are alive, also in float32, and four tensors of the distribution that they make.
    """
    logits = (itemsize + 4) * sum(model.vocabulary for model in models)
    mixed = 4 * 4 * max(model.vocabulary for model in models)
    working = tokens * max(_forward_bytes(model, itemsize) for model in models) + scored * (logits + mixed)
    return Need(weights=itemsize * sum(model.parameters for model in models), working=working)


def classifying(model: Architecture, *, tokens: int, itemsize: int) -> Need:
    """Return what a process needs that holds a reward model and reads so many tokens, padding included, at a time."""
    # A classifier has no output embeddings.
    weights = model.parameters - (0 if model.tied else model.embeddings)
    return Need(weights=itemsize * weights, working=tokens * _forward_bytes(model, itemsize))


def training(
    model: Architecture,
    *,
    tokens: int,
    workers: int,
    zero: str,
    itemsize: int,
    checkpointing: bool,
    whole_logits: bool = False,
    fused: bool = False,
    trained: int | None = None,
) -> Need:
    """Return what a training worker needs that takes so many tokens at a time.

    With P parameters, N workers and b bytes per element, AdamW's states take 12 P bytes: master weights and two moments
    in float32 (Rajbhandari et al., 2020, "ZeRO", section 3.1). They are shared out as in its section 5:

        none            4 P weights, 4 P gradients, 8 P moments: the weights are their own master copy
        zero2           b P weights, (b + 12) P / N
        zero3           (b + b + 12) P / N
        zero3-offload   nothing stays; (2 b + 12) P / N of main memory (Ren et al., 2021, "ZeRO-Offload")

    Where an adapter of `trained` parameters is trained, only those have gradients, states and a master copy. A step's
    own memory comes on top: the larger of a backward pass and an update, which has no temporaries with a `fused` AdamW.
    """
    frozen, count = (0, model.parameters) if trained is None else (model.parameters, trained)
    weights, states, host = _states(count, workers=workers, zero=zero, itemsize=itemsize)
    if frozen:
        weights += _frozen(frozen, workers=workers, zero=zero, itemsize=itemsize)
    # Autocast leaves what layers hand on in the dtype of the weights, of which it makes copies.
    between = 4 if zero == "none" else itemsize
    activations = _activations(model, tokens=tokens, itemsize=itemsize, between=between if checkpointing else None,
                               whole_logits=whole_logits)  # fmt: skip
    backward = activations + _gathered(model.parameters, zero=zero, itemsize=itemsize, kept=not checkpointing)
    update = 0 if fused and zero == "none" else _update(count, workers=workers, zero=zero)
    return Need(weights=weights, states=states, working=max(backward, update), host=host)


def _states(count: float, *, workers: int, zero: str, itemsize: int) -> tuple[float, float, float]:
    if zero == "none":
        # DistributedDataParallel copies gradients into buckets of its own.
        return 4 * count, (12 + (4 if workers > 1 else 0)) * count, 0
    if zero == "zero2":
        return itemsize * count, (itemsize + 12) * count / workers, 0
    if zero == "zero3":
        return itemsize * count / workers, (itemsize + 12) * count / workers, 0
    return 0, 0, (2 * itemsize + 12) * count / workers


def _frozen(count: float, *, workers: int, zero: str, itemsize: int) -> float:
    """Weights that are not trained: in the dtype that DeepSpeed keeps, and in float32 without it."""
    return {"none": 4 * count, "zero2": itemsize * count, "zero3": itemsize * count / workers}.get(zero, 0)


def _gathered(count: float, *, zero: str, itemsize: int, kept: bool) -> float:
    """Copies of weights and gradients on their way: gathered parameters and the reduction's bucket, or autocast's.

    Those of autocast are `kept` for the backward pass; a checkpointed layer makes them again.
    """
    if zero == "none":
        return itemsize * count if itemsize == 2 and kept else 0
    live = 0 if zero == "zero2" else min(count, _LIVE)
    return itemsize * (live + min(count, _BUCKET))


def _update(count: float, *, workers: int, zero: str) -> float:
    """Temporaries of AdamW's step: as large as the parameters of a group, and its gradients in float32 under ZeRO."""
    if zero == "zero3-offload":
        return 0
    if zero == "none":
        return 4 * count
    share = count / workers
    return 8 * (min(share, _SUB_GROUP) if zero == "zero3" else share)


def _activations(model: Architecture, *, tokens: int, itemsize: int, between: int | None, whole_logits: bool) -> float:
    """What a backward pass finds saved, and what it makes of it.

    With checkpointing the input of every layer is kept, of `between` bytes per element, and one layer at a time
    computed again (Chen et al., 2016); the head comes before the first of them.
    """
    saved = _saved_bytes(model, itemsize)
    transient = saved + 2 * itemsize * model.inner + 8 * model.width
    kept = model.layers * (saved if between is None else between * model.width) + 8 * model.width
    if whole_logits:
        head = tokens * model.vocabulary * _LOGIT_BYTES + itemsize * model.embeddings
    else:
        # The gradients of its inputs and its weights are summed up in float32.
        head = 4 * tokens * model.width + (4 + itemsize) * model.embeddings + itemsize * _tile(model, tokens)
    return tokens * kept + max(tokens * transient, head)


def _tile(model: Architecture, tokens: int) -> int:
    return min(tokens, _TILE_TOKENS) * min(model.vocabulary, _TILE_WORDS)


def _saved_bytes(model: Architecture, itemsize: int) -> int:
    """Bytes that one layer saves per token for its backward pass.

    Four tensors of the feed-forward block's width; queries, keys, values (repeated for their group) and the attention's
    output; per norm the float32 input and normalized values, and the output.
    """
    attention = 4 * model.heads * model.head_width
    return itemsize * (4 * model.inner + attention) + 2 * (8 + itemsize) * model.width


def _forward_bytes(model: Architecture, itemsize: int) -> int:
    """Bytes per token that are alive at the widest place of a layer when nothing is saved: its feed-forward block."""
    return 3 * itemsize * model.inner + (3 * itemsize + 4) * model.width


def check_fits(stages: Iterable["Stage"], resources: "Resources") -> None:
    """Raise `UserError` when one process of a stage needs more than the GPU that the profile states."""
    if resources.hardware.gpu_memory_gb is None:
        return
    usable = USABLE_GPU * resources.hardware.gpu_memory_gb
    for stage in stages:
        need = stage.memory(resources)
        if need is not None and need.total > usable * GB:
            raise UserError(
                f"profile {resources.name}: {stage.title} needs {need.total / GB:.1f} GB in each process "
                f"({need.parts}); of a GPU of {resources.hardware.gpu_memory_gb:g} GB {usable:.1f} can be used: "
                f"{_advice(need)}"
            )


def _advice(need: Need) -> str:
    if need.cache:
        return "choose fewer slots"
    if need.states:
        return "choose more workers, deepspeed = 'zero3' or 'zero3-offload', or a smaller micro_tokens"
    return "choose a smaller micro_tokens, or a larger GPU"
