"""What a stage that scores needs of a GPU, from the models of its judge and a profile."""

from cong.generation.needs import without_adapter
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.models import architectures_of, memory, shares_base
from cong.scoring.rewards import ImplicitReward, Judge, RewardModel, judge_models
from cong.scoring.scorers import BATCH


def scoring_need(judge: Judge, *, new_tokens: int, resources: Resources) -> Need | None:
    """Return what an actor needs that holds a judge; None when it holds no model, or one that is not known."""
    models = judge_models(judge)
    known = architectures_of(without_adapter(models))
    if not known:
        return None
    longest = memory.context_tokens(known, new_tokens=new_tokens)
    if isinstance(judge, RewardModel):
        return memory.classifying(known[0], tokens=longest, itemsize=resources.itemsize)
    # A pass takes rows as long as their padded responses stay within `SCORED_TOKENS`; each has its prompt beside it.
    rows = max(1, min(BATCH, memory.SCORED_TOKENS // new_tokens))
    shared = isinstance(judge, ImplicitReward) and shares_base(judge.post, judge.pre)
    return memory.scoring(known, tokens=rows * longest, longest=longest, itemsize=resources.itemsize, shared=shared)
