"""A search goes on past points that are refused or have no finite measure; two searches keep the points of both."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from toy import INLINE, Number, run

from cong.errors import UserError
from cong.experiment import Cell, load
from cong.experiment.axes import Axis, Search
from cong.experiment.grid import accepted_cells
from cong.graph.plan import make_plan
from cong.graph.runner import StageFailed
from cong.run import tuning
from cong.run.job import Job
from cong.run.points import Points, mean_of
from cong.run.sweep import Listener, _trial
from cong.scales import scale

EXPERIMENT = """
from cong.experiment import Cell
from toy import Number

def cells(scale, *, a: int = 1, b: int = 1, refused: tuple[int, ...] = ()):
    if a * b in refused:
        raise ValueError(f"a * b = {a * b} is refused")
    return [Cell(stage=Number(value=a * b), axes={"a": a, "b": b})]
"""


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "product.py"
    path.write_text(EXPERIMENT)
    return load(path)


def search(**more):
    axes = (Axis(name="a", values=(1, 4), bounded=True),)
    return Search(**{"axes": axes, "measure": "number", "lowest": False, "trials": 4, "searcher": "random", "seed": 0}
                  | more)  # fmt: skip


def job_of(experiment, store, **settings):
    plan = make_plan({}, store)
    given = {"cells": [], "scale": scale("tiny"), "settings": settings, "grid": {}, "resources": INLINE}
    return Job(name="product-tiny", experiment=experiment, store=store, plan=plan, **given)


class Reported(list):
    """What a trial says to Ray Tune."""

    def report(self, metrics):
        self.append(metrics)


@pytest.fixture
def reported(monkeypatch):
    import ray.tune

    reported = Reported()
    monkeypatch.setattr(ray.tune, "report", reported.report)
    return reported


def trial(store, *, work, value):
    from cong.graph.runner import Runner

    _trial({}, work=work, value=value, runner=Runner(store=store, resources=INLINE))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_trial_whose_value_is_not_finite_reports_none_and_says_so(store, reported, number):
    trial(store, work=lambda config: make_plan({}, store), value=lambda config: number)
    assert math.isnan(reported[-1]["value"])
    assert reported[-1]["why"] == f"the value is {number}"


def test_a_trial_that_is_refused_reports_the_reason(store, reported):
    def refuse(config):
        raise UserError("n = 4 is no multiple of the micro-batch")

    trial(store, work=refuse, value=lambda config: 1.0)
    assert math.isnan(reported[-1]["value"])
    assert reported[-1]["why"] == "n = 4 is no multiple of the micro-batch"


def test_a_value_that_cannot_be_computed_is_a_reason_too(store, reported):
    def none_of_that_name(config):
        raise UserError("--measure reward: the cells' results hold number")

    trial(store, work=lambda config: make_plan({}, store), value=none_of_that_name)
    assert "--measure reward" in reported[-1]["why"]


@pytest.mark.parametrize("fault", ["demand", "check", "check_execution"])
def test_a_point_whose_stage_objects_is_refused_before_it_runs(experiment, store, monkeypatch, fault):
    def object_to(self, *resources):
        raise ValueError("batch 6 is no multiple of 4")

    monkeypatch.setattr(Number, fault, object_to)
    job = job_of(experiment, store)
    with pytest.raises(UserError, match="batch 6 is no multiple of 4"):
        tuning.planned(job, job.cells_at({"a": 3}))


@pytest.mark.parametrize("results", [{"number": math.nan}, {"number": math.inf}])
def test_a_mean_over_cells_of_which_one_has_no_finite_measure_is_none(store, monkeypatch, results):
    cells = [Cell(stage=Number(value=value), axes={"v": value}) for value in (1.0, 2.0)]
    run(store, *[cell.stage for cell in cells])
    records = iter([{"results": {"number": 1.0}}, {"results": results}])
    monkeypatch.setattr(type(store), "record", lambda self, stage: next(records))
    assert not math.isfinite(mean_of("number", cells, store))


def test_points_that_are_not_finite_or_are_refused_by_now_are_never_best(experiment, store, monkeypatch):
    job = job_of(experiment, store, refused=(4,))
    points = Points(job, search())
    for a in (1, 2, 3, 4):
        run(store, Number(value=a))
        points.add({"a": a})
    values = {1.0: 1.0, 2.0: math.inf, 3.0: math.nan}
    monkeypatch.setattr("cong.run.points.mean_of", lambda measure, cells, store: values[cells[0].stage.value])
    assert [one.point for one in points.judged()] == [{"a": 1}]


def test_two_searches_at_once_keep_the_points_of_both(experiment, store):
    job = job_of(experiment, store)
    first, second, third = (Points(job, search()) for _ in range(3))
    for number, points in enumerate((first, second, third, second, first)):
        points.add({"a": number})
    (path,) = Path(store.root / "searches").glob("*.json")
    assert sorted(point["a"] for point in json.loads(path.read_text())) == [0, 1, 2, 3, 4]
    assert {point["a"] for point in first.known} == {0, 1, 2, 3, 4}


def grid_of(experiment, refused, **axes):
    cells = accepted_cells(experiment, scale("tiny"), {"refused": refused}, axes)
    return sorted((cell.axes["a"], cell.axes["b"]) for cell in cells)


def test_a_corner_that_is_refused_does_not_end_a_search(experiment):
    assert grid_of(experiment, (16,), a=(1, 4), b=(1, 4)) == [(1, 1), (1, 4), (4, 1)]
    assert grid_of(experiment, (2,), a=(1, 2, 3), b=(1,)) == [(1, 1), (3, 1)]


@pytest.mark.parametrize("refused", [(4,), (1, 4), (1,)])
def test_an_end_that_is_always_refused_is_named_before_anything_starts(experiment, refused):
    with pytest.raises(UserError, match="is refused"):
        grid_of(experiment, refused, a=(1, 4), b=(1,))


def test_a_refused_cell_of_a_grid_is_kept_with_its_reason():
    listener = Listener(observers=(), stages=[])
    listener.end("t", {"cell": "x"}, math.nan, "Huge needs 100000 CPUs, the cluster has 2")
    assert listener.refused == [({"cell": "x"}, "Huge needs 100000 CPUs, the cluster has 2")]


def searched(experiment, store, *, refused, failures=()):
    """Report a search whose trials came to nothing."""
    job = job_of(experiment, store)
    ended = tuning.Searching(job=job, search=search(), finished=Points(job, search()))
    dataclasses.replace(ended, failures=list(failures), refused=refused).report()


def test_a_search_without_any_finite_measure_is_one_line(experiment, store):
    with pytest.raises(UserError, match="none of 2 points of the search can be used: a 1: the value is nan"):
        searched(experiment, store, refused=["a 1: the value is nan", "a 2: the value is inf"])


def test_a_search_all_of_whose_points_failed_names_the_failures(experiment, store, monkeypatch):
    with pytest.raises(StageFailed, match="RuntimeError: broken"):
        searched(experiment, store, refused=[], failures=[(Number(), RuntimeError("broken"))])


def test_a_baseline_that_is_the_same_at_every_point_does_not_count(experiment, store):
    points = Points(job_of(experiment, store), search())
    searched, other = (Cell(stage=Number(value=value), axes={"a": value, "seed": 0}) for value in (2.0, 4.0))
    baseline = Cell(stage=Number(value=99.0), axes={"method": "Base", "seed": 0})
    run(store, searched.stage, other.stage, baseline.stage)
    assert points.value([searched, baseline, other]) == 3.0
    # Axes of the experiment need not be axes of its cells.
    assert points.value([baseline]) == 99.0
