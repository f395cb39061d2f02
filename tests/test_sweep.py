"""Grids and searches as trials of Ray Tune, on a real Ray."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import cloudpickle
from toy import Broken, Number, Sum

from cong.errors import UserError
from cong.experiment import collect, load
from cong.experiment.axes import Search, parse_axis
from cong.graph.demand import Capacity, Demand
from cong.graph.plan import make_plan
from cong.graph.resources import Resources
from cong.graph.runner import StageFailed
from cong.graph.stage import Context, Stage
from cong.run import launch, tuning
from cong.run.job import prepare
from cong.run.points import Points
from cong.run.sweep import Sweep, concurrency, split
from cong.tracking import PARENT, database, tracking_uri

BOWL = Path(__file__).parent / "sweeping.py"
RAY = Resources(name="ray").changed(cpus=2)
TWO_CPUS = Capacity(nodes=(Demand(cpus=2),))
GRID = ("alpha=0,0.5,1", "beta=0.1,0.5")


@pytest.fixture(autouse=True)
def stages_travel():
    """Ray's workers do not find this file by its name."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def store(store, empty_database):
    """A store with a tracker's database, which takes longer to make than any stage here."""
    (store.root / database.NAME).write_bytes(empty_database)
    return store


def prepared(store, *, grid=GRID, assignments=(), own_grid=True):
    return prepare(
        BOWL, scale="tiny", assignments=list(assignments), resources=RAY, store=store, grid=grid, own_grid=own_grid
    )


def search_of(*over, trials, searcher="optuna", measure="number"):
    axes = tuple(parse_axis(load(BOWL), text) for text in over)
    return Search(axes=axes, measure=measure, lowest=True, trials=trials, searcher=cast(Any, searcher), seed=0)


def times_computed(job):
    return {stage.fingerprint: (job.store.directory(stage) / "marks.txt").read_text().count("computed")
            for stage in job.plan.stages}  # fmt: skip


def runs_of(job, name):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracking_uri(job.store))
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def test_what_several_cells_need_is_apart_from_what_one_cell_needs(store):
    job = prepared(store)
    shared, own = split(job.plan)
    assert len(shared) == 1 + 3
    assert {name: len(stages) for name, stages in own.items()} == {cell.name: 1 for cell in job.cells}
    assert {s.fingerprint for s in shared}.isdisjoint(s.fingerprint for stages in own.values() for s in stages)


def test_a_grid_computes_every_stage_once_and_tracks_every_cell(store, ray_of_two_cpus):
    job = prepared(store)
    launch.run(job)
    assert set(times_computed(job).values()) == {1}
    assert len(times_computed(job)) == 1 + 3 + 6
    results = {found.cell.name: found.values["number"] for found in collect(job.cells, store)}
    assert results["alpha=0.5,beta=0.1"] == pytest.approx(0.2**2 + 0.1**2)
    runs = runs_of(job, "sweeping-tiny")
    parent = next(run for run in runs if PARENT not in run.data.tags)
    cells = [run for run in runs if run.data.tags.get(PARENT) == parent.info.run_id and "beta" in run.data.params]
    assert len(cells) == 6
    assert all(run.info.status == "FINISHED" for run in runs)
    assert sum("cong.stage" in run.data.tags for run in runs) == 10
    assert {store.record(stage)["tracking_run"] for stage in job.plan.stages} == {parent.info.run_id}


def test_a_cell_that_fails_leaves_the_others_alone_and_is_named(store, ray_of_two_cpus, capsys):
    job = prepared(store, assignments=["poison=0.5"])
    with pytest.raises(StageFailed, match=r"ValueError: no such value: 0\.5") as failed:
        launch.run(job)
    assert len(failed.value.failures) == 3
    done = [cell.axes["beta"] for cell in job.cells if store.is_complete(cell.stage)]
    assert done == [0.1, 0.1, 0.1]
    assert capsys.readouterr().out.count("FAILED Part") == 3


def test_a_shared_stage_that_fails_takes_only_its_own_cells_along(store, ray_of_two_cpus):
    bad, good = Broken(), Number(value=1)
    cells = {"a": Sum(parts=(bad, Number(value=2))), "b": Sum(parts=(bad, Number(value=3))),
             "c": Sum(parts=(good, Number(value=4))), "d": Sum(parts=(good, Number(value=5)))}  # fmt: skip
    with pytest.raises(StageFailed) as failed:
        Sweep(store=store, resources=RAY, capacity=TWO_CPUS).run(make_plan(cells, store))
    assert [stage.fingerprint for stage, _ in failed.value.failures] == [bad.fingerprint]
    assert [name for name, stage in cells.items() if store.is_complete(stage)] == ["c", "d"]


def test_a_trial_whose_process_is_killed_goes_on_in_another(store, ray_of_two_cpus, tmp_path):
    cells = {"a": KillsItsTrial(flag=str(tmp_path / "flag")), "b": Number(value=2)}
    Sweep(store=store, resources=RAY, capacity=TWO_CPUS).run(make_plan(cells, store))
    assert (tmp_path / "flag").exists()
    assert all(store.is_complete(stage) for stage in cells.values())


@given(
    st.lists(
        st.builds(Demand, cpus=st.integers(1, 8), gpus=st.integers(0, 8), processes=st.integers(1, 4)), min_size=1
    ),
    st.lists(st.builds(Demand, cpus=st.integers(1, 64), gpus=st.integers(0, 8)), min_size=1, max_size=4),
)
def test_trials_at_a_time_find_room_whatever_stages_they_are_at(demands, nodes):
    stages, capacity = [Demanding(demanded=demand) for demand in demands], Capacity(nodes=tuple(nodes))
    at_once, share = concurrency(stages, RAY, capacity)
    assert 1 <= at_once <= len(stages)
    if at_once > 1:
        assert all(demand.fits(share) and demand.processes <= share.processes for demand in demands)
        assert capacity.lack(share.part.times(at_once * share.processes)) is None


def test_a_search_nears_the_best_point_and_goes_on_where_it_was_ended(store, ray_of_two_cpus, capsys):
    few, more = (search_of("alpha=0:1", "beta=0.01:1:log", trials=trials) for trials in (4, 7))
    job = prepared(store, grid=few.corners, own_grid=False)
    tuning.tune(job, few)
    first = Points(job, few).judged()
    page = tuning.tune(job, more)
    found = Points(job, more).judged()
    assert (len(first), len(found)) == (4, 7)
    assert {one.cells[0].name for one in first} <= {one.cells[0].name for one in found}
    assert [one.value for one in found] == sorted(one.value for one in found)
    assert "best number" in capsys.readouterr().out
    assert "Points, the best first" in page.read_text()
    for one in found:
        axes = one.point
        assert one.value == pytest.approx((axes["alpha"] - 0.3) ** 2 + (axes["beta"] - 0.2) ** 2)
        assert (store.directory(one.cells[0].stage) / "marks.txt").read_text().count("computed") == 1
    children = [run for run in runs_of(job, "sweeping-tiny-search") if PARENT in run.data.tags]
    assert len([run for run in children if "cong.stage" not in run.data.tags]) == 4 + 7


def test_a_random_search_proposes_the_same_points_again(store, ray_of_two_cpus):
    search = search_of("alpha=0:1", "gamma=1,2,4", trials=3, searcher="random")
    job = prepared(store, grid=search.corners, own_grid=False)
    tuning.tune(job, search)
    points = Points(job, search).known
    tuning.tune(prepared(store, grid=search.corners, own_grid=False), search)
    assert Points(job, search).known == points
    assert len(points) == 3


def test_a_measure_that_no_cell_has_is_named_with_those_there_are(store, ray_of_two_cpus):
    search = search_of("alpha=0:1", trials=1, measure="reward")
    with pytest.raises(UserError, match="--measure reward: the cells' results hold number"):
        tuning.tune(prepared(store, grid=search.corners, own_grid=False), search)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ("alpha", "write AXIS=LOW:HIGH"),
        ("delta=0:1", "unknown axis 'delta'"),
        ("alpha=1:0", "is not below"),
        ("beta=0:1:log", "begins above 0"),
        ("beta=0:1:lin", "is not LOW:HIGH"),
        ("alpha=0.5", "at least two different values"),
        ("gamma=1:x", "'x' is not of type int"),
    ],
)
def test_an_axis_that_cannot_be_searched_is_refused_with_the_reason(over, message):
    with pytest.raises(UserError, match=message):
        parse_axis(load(BOWL), over)


def test_bounds_that_the_experiment_does_not_accept_are_refused_before_anything_starts(store):
    search = search_of("alpha=0:2", trials=1)
    with pytest.raises(UserError, match=r"alpha = 2 is not in \[0, 1\]"):
        prepared(store, grid=search.corners, own_grid=False)


@dataclass(frozen=True, kw_only=True)
class Demanding(Stage):
    demanded: Demand

    def demand(self, resources: Resources) -> Demand:
        return self.demanded


@dataclass(frozen=True, kw_only=True)
class KillsItsTrial(Stage):
    """Ends the process of every trial of Ray Tune on this machine, once."""

    flag: str

    def run(self, ctx: Context) -> None:
        flag = Path(self.flag)
        if not flag.exists():
            flag.touch()
            trials = [found for found in psutil.process_iter(["cmdline"]) if _is_trial_of(found, os.getpid())]
            assert trials
            for trial in trials:
                trial.send_signal(signal.SIGKILL)
        ctx.summary(number=1.0)


def _is_trial_of(process, own: int) -> bool:
    """Ray names a process after the actor that it holds; only those of this test's own Ray count."""
    title = " ".join(process.info["cmdline"] or ())
    return "ImplicitFunc" in title and process.ppid() == psutil.Process(own).ppid()
