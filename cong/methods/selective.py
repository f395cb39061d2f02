"""When to trust the weak model: own answers where the strong model knows, else weak labels that are likely right.

    t = transition("qwen", weak="1.5B", strong="14B", scale=scale("tiny"))
    student = selective(t, labels=100)          # P(IK): its own answers where a probe says that it can answer
    student = trust(t, labels=100, share=0.5)   # the best half of the weak labels, by a probe of the weak model

Unlike the other weak-to-strong methods both see the true reward, of the responses to `labels` training prompts. Weak
labels are the greedy responses of the aligned weak model, as in Weak SFT (post). The papers read states at the last
token; `token="mean"` takes the mean over the prompt's or the response's tokens.
"""

from cong.generation import Generate
from cong.methods.transitions import Transition
from cong.probing import Chance, HiddenStates, Labelled, Mixture, Probe, ProbeQuality, Smoothed, TopShare
from cong.probing.choose import Scored
from cong.probing.probe import Kind
from cong.probing.states import Token
from cong.scoring import Likelihood, Score
from cong.training import SFT

LABELS = 100
"""Training prompts whose responses are judged by the true reward."""


def selective(t: Transition, *, labels: int = LABELS, smoothing: float = 0.5) -> SFT:
    """Selective W2SG (arXiv:2511.14166): SFT on the strong model's own answers where P(IK) > 0.5, else on weak labels.

    Its paper smooths the weak class labels over a graph; texts have no mean, so here P(IK) is smoothed.
    """
    data = Mixture(scored=p_ik_smoothed(t, labels=labels, smoothing=smoothing), otherwise=weak_labels(t))
    return t.scale.sft.stage(model=t.strong, data=data, seed=t.seed)


def p_ik(t: Transition, *, labels: int = LABELS, kind: Kind = "logistic", token: Token = "last") -> Probe:
    """P(IK | x), of the strong model's state at the prompt: is its greedy answer better than the mean weak label?

    Where answers are right or wrong, that is whether it is right.
    """
    own, length = t.respond(t.strong), t.scale.sft.max_length
    states = HiddenStates(model=t.strong, data=own, of="prompt", token=token, max_length=length)
    bar = _judged(t, weak_labels(t), labels)
    return Probe(states=states, labels=_judged(t, own, labels), bar=bar, kind=kind, seed=t.seed)


def p_ik_smoothed(t: Transition, *, labels: int = LABELS, smoothing: float = 0.5) -> Scored:
    """P(IK) drawn towards that of the nearest prompts; with a smoothing of 0 P(IK) itself."""
    probe = p_ik(t, labels=labels)
    return Smoothed(scored=probe, states=probe.states, share=smoothing) if smoothing else probe


def trust(t: Transition, *, labels: int = LABELS, share: float = 0.5, token: Token = "last") -> SFT:
    """Trust functions (arXiv:2606.01000): SFT on the share of weak labels that a probe of the weak model trusts."""
    return filtered(t, scored=trust_score(t, labels=labels, token=token), share=share)


def trust_score(t: Transition, *, labels: int = LABELS, kind: Kind = "mlp", token: Token = "last") -> Probe:
    """The probability that a weak label is better than the mean one, by the weak model's state of prompt and label."""
    given = weak_labels(t)
    states = HiddenStates(model=t.weak_aligned, data=given, token=token, max_length=t.scale.sft.max_length)
    return Probe(states=states, labels=_judged(t, given, labels), kind=kind, seed=t.seed)


def filtered(t: Transition, *, scored: Scored, share: float) -> SFT:
    """SFT on the share of weak labels with the highest scores."""
    return t.scale.sft.stage(model=t.strong, data=TopShare(scored=scored, share=share), seed=t.seed)


def own_answers(t: Transition) -> SFT:
    """SFT of the strong model on its own greedy answers: what Selective is where it knows everything."""
    return t.scale.sft.stage(model=t.strong, data=t.respond(t.strong), seed=t.seed)


def by_truth(t: Transition) -> Score:
    """Scores of the weak labels by the true reward, of all of them: the most that a filter can have."""
    return Score(responses=weak_labels(t), judge=t.reward)


def by_chance(t: Transition) -> Score:
    """Scores of the weak labels by chance: the control of equal size."""
    return Score(responses=weak_labels(t), judge=Chance(seed=t.seed))


def by_confidence(t: Transition) -> Score:
    """Scores of the weak labels by their likelihood under the weak model: the control that drops what it doubts."""
    return Score(responses=weak_labels(t), judge=Likelihood(model=t.weak_aligned))


def weak_labels(t: Transition) -> Generate:
    """The greedy responses of the aligned weak model to the training prompts."""
    return t.respond(t.weak_aligned)


def probe_quality(
    t: Transition, probe: Probe, *, scored: Scored | None = None, share: float | None = None
) -> ProbeQuality:
    """What a probe, or another score of the same responses, is worth on unlabelled training prompts.

    Kept is the best share; None keeps what is above 0.5.
    """
    truth = Score(responses=probe.responses, judge=t.reward)
    kept = {"share": share} if share is not None else {"threshold": 0.5}
    return ProbeQuality(probe=probe, scored=scored or probe, truth=truth, **kept)


def _judged(t: Transition, responses: Generate, labels: int) -> Score:
    return Score(responses=Labelled(responses=responses, count=labels, seed=t.seed), judge=t.reward)
