"""What is measured of a transition and of the models that methods return: stages of the evaluation."""

from cong.data.prompts import Subset
from cong.evaluation import Compare, Downstream, Evaluate
from cong.evaluation.contests import Contest
from cong.generation import Sampling
from cong.methods.field import best_of
from cong.methods.transitions import GREEDY, Transition
from cong.models import Model
from cong.scoring import Likelihood, Score


def alignment_distance(t: Transition) -> Evaluate:
    """How far alignment moved the weak model: `reward` is KL(pi_r || pi_ref) in nats per response, on held-out prompts.

    The divergence is the mean of log pi_r - log pi_ref over samples of pi_r: the implicit reward of plain samples.
    """
    samples = t.generate(t.weak_aligned, t.heldout, sampling=Sampling(temperature=1.0), samples=4)
    score = Score(responses=samples, judge=t.implicit)
    return Evaluate(scored=score, implicit=score)


def heldout_score(t: Transition, model: Model, *, sampling: Sampling, samples: int = 1) -> Score:
    """The rewards of a model's responses to the held-out prompts."""
    responses = t.generate(model, t.heldout, sampling=sampling, samples=samples)
    return Score(responses=responses, judge=t.reward)


def evaluate(t: Transition, model: Model, *, sampled: bool = False, fluency: bool = False) -> Evaluate:
    """A model on the held-out prompts, against the strong model as it is; greedy, or the mean of four samples.

    Fluency is measured under the strong model as it is.
    """
    sampling, samples = (t.scale.sampled, 4) if sampled else (GREEDY, 1)
    scored, opponent = (heldout_score(t, one, sampling=sampling, samples=samples) for one in (model, t.strong))
    implicit = Score(responses=scored.responses, judge=t.implicit)
    likely = Score(responses=scored.responses, judge=Likelihood(model=t.strong)) if fluency else None
    return Evaluate(scored=scored, opponent=opponent, implicit=implicit, fluency=likely)


def downstream(t: Transition, model: Model) -> Downstream:
    """A model on the tasks of the scale (table 2): whether alignment costs it what it knew."""
    return t.scale.tasks(t.seed).stage(model=model)


def evaluate_contrastive(t: Transition, *, alpha: float, tuning: int | None = None, fluency: bool = False) -> Evaluate:
    """The weak pair's contrastive responses themselves on the held-out prompts (figure 2).

    With `tuning`, on so many training prompts instead: alpha is not tuned on what it is judged by. Fluency is measured
    under the weak model before its alignment.
    """
    prompts = t.heldout if tuning is None else Subset(prompts=t.prompts, count=tuning)
    responses = t.contrast(prompts, alpha=alpha)
    likely = Score(responses=responses, judge=Likelihood(model=t.weak)) if fluency else None
    return Evaluate(scored=Score(responses=responses, judge=t.reward), implicit=responses, fluency=likely)


def evaluate_best_of(t: Transition, *, n: int, drawn: int, explicit: bool = False) -> Evaluate:
    """The best of n samples of the aligned weak model on the held-out prompts: over-optimisation, as n grows.

    `reward` is explicit whatever chose; chosen by it, it is what the best choice of n could have. All n share `drawn`
    samples.
    """
    best = best_of(t, n=n, drawn=drawn, prompts=t.heldout, explicit=explicit)
    implicit = Score(responses=best, judge=t.implicit)
    return Evaluate(scored=Score(responses=best, judge=t.reward), implicit=implicit)


def compete(t: Transition, model: Model, contest: Contest) -> Compare:
    """A model's greedy responses in a benchmark of pairs."""
    baseline = contest.baseline or t.generate(t.strong, contest.prompts)
    return Compare(responses=t.generate(model, contest.prompts), baseline=baseline, judge=contest.judge)


def naive_samples(t: Transition) -> Evaluate:
    """Plain samples of the aligned weak model on the held-out prompts: what contrastive decoding is compared with."""
    responses = t.generate(t.weak_aligned, t.heldout, sampling=t.scale.sampled)
    implicit = Score(responses=responses, judge=t.implicit)
    return Evaluate(scored=Score(responses=responses, judge=t.reward), implicit=implicit)
