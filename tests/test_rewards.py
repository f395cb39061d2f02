"""A reward of one's own needs one class in one file, and nothing in cong; every stage says what it takes."""

import inspect
from dataclasses import dataclass
from pathlib import Path

import pytest
import spoken
from toy import Number

from cong.data import SCORES, read_rows
from cong.errors import UserError
from cong.experiment import load
from cong.generation import Generate
from cong.graph.plan import make_plan
from cong.graph.resources import load_profile
from cong.graph.runner import Runner, StageFailed
from cong.graph.stage import Stage
from cong.graph.work import LITTLE
from cong.models import LocalModel
from cong.run.workload import estimate
from cong.scoring import BestAgainstWorst, Reward, Score
from cong.synthetic.stages import SyntheticPrompts
from cong.synthetic.world import World


@dataclass(frozen=True, kw_only=True)
class Length(Reward):
    """The length of the response in characters, up to a limit."""

    most: int = 1000

    def of(self, row):
        return float(min(len(row["response"]), self.most))


@dataclass(frozen=True, kw_only=True)
class Fussy(Reward):
    """Objects to responses of an even length."""

    def of(self, row):
        if len(row["response"]) % 2 == 0:
            raise KeyError("even")
        return float("nan") if len(row["response"]) % 3 == 0 else 1.0


@pytest.fixture(scope="module")
def responses(tmp_path_factory):
    model = LocalModel(path=str(spoken.checkpoint(tmp_path_factory.mktemp("model"))))
    prompts = SyntheticPrompts(world=World(seed=0), split="train", count=12, seed=0)
    return Generate(model=model, prompts=prompts, max_new_tokens=8, samples=3, seed=1)


def made(stage, store):
    Runner(store=store, resources=spoken.INLINE).run(make_plan({"a": stage}, store))
    return store.directory(stage)


def test_a_reward_of_ones_own_scores_plans_and_makes_pairs(responses, store):
    score = Score(responses=responses, judge=Length())
    rows = read_rows(made(score, store) / SCORES)
    assert [row["reward"] for row in rows] == [float(len(row["response"])) for row in rows]
    assert score.title == "Score(length)"
    assert str(score.demand(load_profile("l40x4"))) == "1 CPU"
    assert score.memory(load_profile("l40x4")) is None
    assert score.row_count() == 36
    assert BestAgainstWorst(scored=score).row_count() == 12
    assert estimate([score], load_profile("l40x4")).gpu_seconds == 0


def test_its_fields_are_its_identity(responses):
    stages = [Score(responses=responses, judge=reward) for reward in (Length(), Length(most=5), Fussy())]
    assert len({stage.fingerprint for stage in stages}) == 3
    assert Score(responses=responses, judge=Length(most=1000)).fingerprint == stages[0].fingerprint


def test_what_it_raises_is_the_error_of_that_row_alone(responses, store):
    score = Score(responses=responses, judge=Fussy(), max_error_share=1.0)
    rows = read_rows(made(score, store) / SCORES)
    lengths = [len(row["response"]) for row in rows]
    errors = ["KeyError: 'even'" if length % 2 == 0 else "the reward is nan" if length % 3 == 0 else None
              for length in lengths]  # fmt: skip
    assert [row["error"] for row in rows] == errors
    assert [row["reward"] for row in rows] == [None if error else 1.0 for error in errors]


def test_too_many_errors_end_the_stage_and_name_the_first(responses, store):
    with pytest.raises(StageFailed, match="rows failed, more than the"):
        made(Score(responses=responses, judge=Fussy(), max_error_share=0.0), store)


def test_a_reward_that_says_nothing_is_a_mistake_of_its_class(responses, store):
    with pytest.raises(StageFailed, match="Reward has no method `of`"):
        made(Score(responses=responses, judge=Reward()), store)


def stage_classes():
    import cong.cli.app
    import cong.evaluation.rating
    import cong.paper.tables
    import cong.synthetic.tasks

    assert cong
    files = [path for path in Path(__file__).parents[1].glob("experiments/*.py") if "def cells(" in path.read_text()]
    ours = {load(path).module.__name__ for path in files}
    queue, found = [Stage], []
    while queue:
        kinds = queue.pop().__subclasses__()
        queue += kinds
        found += [kind for kind in kinds if kind.__module__.startswith("cong.") or kind.__module__ in ours]
    return found


def test_every_stage_says_what_it_takes():
    kinds = stage_classes()
    assert len(kinds) > 25
    silent = [kind.__name__ for kind in kinds if kind.work is Stage.work and not inspect.isabstract(kind)]
    assert silent == []


def test_a_stage_that_does_not_say_what_it_takes_is_no_zero():
    assert inspect.isfunction(Stage.work)
    with pytest.raises(UserError, match="Number has no method `work`"):
        estimate([Number(value=1.0)], load_profile("l40x4"))
    assert LITTLE.stages == 1
