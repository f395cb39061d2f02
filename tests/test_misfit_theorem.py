"""The theorem behind misfit (Charikar et al., 2024): where it must hold, and that elsewhere it need not."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from cong.report.misfit import Candidate, least_bound, regret


def error(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean((one - other) ** 2))


def world(seed: int, *, prompts: int = 40, features: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, a truth that a linear head of non-negative weights on them gives, and a weak model's labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(prompts, features))
    truth = x @ rng.uniform(0, 2, size=features)
    return x, truth, truth + rng.normal(scale=rng.uniform(0.1, 3), size=prompts) + rng.normal()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_convex_heads_that_contain_the_truth_gain_at_least_their_misfit(seed):
    x, truth, weak = world(seed)
    linear = x @ np.linalg.lstsq(x, weak, rcond=None)[0]
    convex = x @ optimize.nnls(x, weak)[0]
    for student in (linear, convex):
        assert error(student, truth) <= error(weak, truth) - error(student, weak) + 1e-9
    # A projection onto a linear space leaves a right angle: the gain is the misfit.
    assert error(linear, truth) == pytest.approx(error(weak, truth) - error(linear, weak))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_a_student_nearest_in_divergence_gains_at_least_its_misfit(seed):
    """Its misfit is KL(student || weak), and its head the distributions with the truth's means of some features."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(2, 8))
    truth, weak = rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(8)) + 1e-3
    weak /= weak.sum()

    def tilted(weights: np.ndarray) -> np.ndarray:
        logits = np.log(weak) + weights @ features
        return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()

    def dual(weights: np.ndarray) -> float:
        logits = np.log(weak) + weights @ features
        return float(np.logaddexp.reduce(logits) - weights @ features @ truth)

    found = optimize.minimize(dual, np.zeros(2), jac=lambda w: features @ (tilted(w) - truth), tol=1e-12)
    student = tilted(found.x)
    assume(np.abs(features @ (student - truth)).max() < 1e-7)
    gain = stats.entropy(truth, weak) - stats.entropy(truth, student)
    assert gain == pytest.approx(stats.entropy(student, weak), abs=1e-5)


def violations(make) -> int:
    """Return in how many of 50 worlds a student gains less than its misfit."""
    found = 0
    for seed in range(50):
        x, truth, weak = world(seed)
        student, truth = make(x, truth, weak)
        found += error(student, truth) > error(weak, truth) - error(student, weak) + 1e-9
    return found


def test_heads_that_are_not_convex_or_lack_the_truth_may_gain_less():
    def of_two(x, truth, weak):
        # Of two heads, one of which is the truth, the one nearer to the weak labels.
        other = weak + 0.9 * (truth - weak)[::-1]
        return min((truth, other), key=lambda head: error(head, weak)), truth

    def without_the_truth(x, truth, weak):
        return x[:, :3] @ np.linalg.lstsq(x[:, :3], weak, rcond=None)[0], truth

    def convex(x, truth, weak):
        return x @ optimize.nnls(x, weak)[0], truth

    assert violations(of_two) > 5
    assert violations(without_the_truth) > 5
    assert violations(convex) == 0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_with_linear_heads_error_minus_misfit_chooses_the_best_weak_model(seed):
    x, truth, _ = world(seed)
    rng = np.random.default_rng(seed)
    candidates = []
    for number, noise in enumerate((0.2, 0.5, 1.0)):
        weak = truth + rng.normal(scale=noise, size=len(truth)) + noise * x[:, 0] * rng.normal()
        student = x @ np.linalg.lstsq(x, weak, rcond=None)[0]
        candidates.append(
            Candidate(
                name=str(number), misfit=error(student, weak), weak=-error(weak, truth), student=-error(student, truth)
            )
        )
    assert regret(candidates, least_bound(candidates)) == pytest.approx(0, abs=1e-9)
