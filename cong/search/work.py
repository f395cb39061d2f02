"""How long a search takes on a GPU, estimated like all that models do (`cong.models.work`)."""

from cong.graph.resources import Resources
from cong.models import Model
from cong.models.work import FORWARD, PROMPT_TOKENS, RESPONSE_TOKENS, arithmetic_seconds, decoding_seconds


def search_seconds(
    strong: Model,
    pair: tuple[Model, Model],
    *,
    rows: int,
    beams: int,
    expansions: int,
    chunk: int | None,
    resources: Resources,
) -> float:
    """Return the seconds of one GPU for drawing all continuations, prefilling beams again, and scoring.

    A round prefills every beam once, for its continuations share that, and scores all continuations whole.
    """
    rounds = max(1, -(-RESPONSE_TOKENS // (chunk or RESPONSE_TOKENS)))
    before = PROMPT_TOKENS + RESPONSE_TOKENS * (rounds - 1) / (2 * rounds)
    after = PROMPT_TOKENS + RESPONSE_TOKENS * (rounds + 1) / (2 * rounds)
    drawing = decoding_seconds((strong,), rows=rows * beams * expansions, resources=resources)
    prefilled = FORWARD * rows * beams * (rounds - 1) * before
    scored = FORWARD * rows * beams * expansions * rounds * after
    again = arithmetic_seconds(strong, operations=prefilled, resources=resources)
    scoring = (arithmetic_seconds(model, operations=scored, resources=resources) for model in pair)
    return drawing + again + sum(scoring)
