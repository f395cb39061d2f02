"""Weak-to-strong search (Zhou et al., 2024, arXiv:2405.19262), and training on what it finds.

    t = transition("qwen", weak="1.5B", strong="14B", scale=scale("tiny"))
    found = evaluate_search(t, beams=2, expansions=2, chunk=30)      # no model is trained
    student = search_sft(t, beams=2, expansions=2, chunk=30)

The paper's settings of (beams, expansions, chunk) are (2, 2, 30) and (4, 4, 5), for responses of some hundred tokens.
Without `prompts` the training prompts are taken.
"""

from cong.evaluation import Evaluate
from cong.generation import Sampling
from cong.graph.stage import Stage
from cong.methods.measures import heldout_score
from cong.methods.transitions import GREEDY, Transition
from cong.scoring import BestOfN, Score
from cong.search import Search
from cong.training import SFT

DRAWN = Sampling(temperature=0.7, top_k=50)
"""How the strong model draws: as in the authors' script for instruction following."""


def search(t: Transition, *, beams: int, expansions: int, chunk: int | None, prompts: Stage | None = None) -> Search:
    """Responses of the strong model steered by the weak pair; a chunk of None is a whole response."""
    return Search(
        model=t.strong,
        post=t.weak_aligned,
        pre=t.weak,
        prompts=prompts or t.prompts,
        beams=beams,
        expansions=expansions,
        chunk=chunk,
        max_new_tokens=t.scale.max_new_tokens,
        sampling=DRAWN,
        seed=t.seed,
    )


def best_of_strong(t: Transition, *, n: int, drawn: int | None = None, prompts: Stage | None = None) -> BestOfN:
    """The best of n samples of the strong model by the weak pair's implicit reward: search with one beam and no chunks.

    `drawn` samples are made, of which the first n count: several n share them. None takes n, and the training prompts.
    """
    samples = t.generate(t.strong, prompts or t.prompts, sampling=DRAWN, samples=drawn or n)
    return BestOfN(scored=Score(responses=samples, judge=t.implicit), n=n)


def search_sft(t: Transition, *, beams: int, expansions: int, chunk: int | None) -> SFT:
    """SFT of the strong model on what search finds for the training prompts: the search without its cost."""
    found = search(t, beams=beams, expansions=expansions, chunk=chunk)
    return t.scale.sft.stage(model=t.strong, data=found, seed=t.seed)


def evaluate_search(t: Transition, *, beams: int, expansions: int, chunk: int | None) -> Evaluate:
    """Search itself on the held-out prompts, against the greedy strong model."""
    found = search(t, beams=beams, expansions=expansions, chunk=chunk, prompts=t.heldout)
    opponent = heldout_score(t, t.strong, sampling=GREEDY)
    return Evaluate(scored=Score(responses=found, judge=t.reward), opponent=opponent, implicit=found)


def evaluate_best_of_strong(t: Transition, *, n: int, drawn: int) -> Evaluate:
    """The best of n samples of the strong model on the held-out prompts, against it when greedy."""
    best = best_of_strong(t, n=n, drawn=drawn, prompts=t.heldout)
    opponent = heldout_score(t, t.strong, sampling=GREEDY)
    return Evaluate(
        scored=Score(responses=best, judge=t.reward),
        opponent=opponent,
        implicit=Score(responses=best, judge=t.implicit),
    )
