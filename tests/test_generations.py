"""A report never mixes two generations: what depends on a stage that was computed again is computed again as well."""

import json
from dataclasses import dataclass

import pytest
from toy import INLINE, Number, Sum, read, run, runs

from cong.graph.plan import make_plan
from cong.graph.stage import Context, Stage
from cong.graph.store import RECORD, SUCCESS
from cong.run import launch
from cong.run.job import prepare


@dataclass(frozen=True, kw_only=True)
class Dial(Stage):
    """Copies a file: the same fingerprint with other content, as a training on another GPU has."""

    path: str

    def run(self, ctx: Context) -> None:
        with open(self.path) as file:
            (ctx.out / "number.txt").write_text(file.read())
        ctx.summary(number=1.0)


@pytest.fixture
def dial(tmp_path):
    (tmp_path / "dial").write_text("1")
    return Dial(path=str(tmp_path / "dial"))


def turn(dial, number):
    with open(dial.path, "w") as file:
        file.write(str(number))


ONE, TWO = Number(value=1), Number(value=2)
MIDDLE = Sum(parts=(ONE,))
LAST = Sum(parts=(MIDDLE, TWO))


def test_force_goes_on_to_all_that_depends_on_the_stage(store):
    run(store, LAST)
    plan = make_plan({"a": LAST}, store, force=("value=1",))
    states = {stage.slug: plan.state(stage) for stage in plan.stages}
    assert states[ONE.slug] == "to run (forced)"
    assert states[MIDDLE.slug] == states[LAST.slug] == "to run (an input is computed again)"
    assert states[TWO.slug] == "cached"
    before = runs(store)
    run(store, LAST, force=("value=1",))
    assert runs(store) == before + 3


def test_forcing_the_last_stage_leaves_its_inputs(store):
    run(store, LAST)
    plan = make_plan({"a": LAST}, store, force=(LAST.slug,))
    assert [stage.fingerprint for stage in plan.todo] == [LAST.fingerprint]


def test_another_experiment_sees_that_an_input_was_remade(store, dial):
    other = Sum(parts=(Sum(parts=(dial,)), TWO))
    run(store, other)
    turn(dial, 5)
    run(store, dial, force=("Dial",))
    plan = make_plan({"other": other}, store)
    assert [plan.state(stage) for stage in plan.stages] == [
        "cached", "to run (made from an earlier Dial)", "cached", "to run (an input is computed again)",
    ]  # fmt: skip
    assert not store.is_complete(other.parts[0])
    run(store, other)
    assert read(store.directory(other)) == 7
    assert make_plan({"other": other}, store).todo == ()


def test_an_interrupted_force_is_gone_on_with(store, dial, monkeypatch):
    total = Sum(parts=(dial, ONE))
    run(store, total)
    turn(dial, 5)

    def die(self, ctx):
        raise KeyboardInterrupt

    monkeypatch.setattr(Sum, "run", die)
    with pytest.raises(KeyboardInterrupt):
        run(store, total, force=("Dial",))
    monkeypatch.undo()
    run(store, total)
    assert read(store.directory(total)) == 6


def test_an_input_that_came_out_the_same_leaves_what_was_made_of_it(store, dial):
    total = Sum(parts=(dial, ONE))
    run(store, total)
    run(store, dial, force=("Dial",))
    assert make_plan({"a": total}, store).todo == ()


def test_an_input_that_was_deleted_leaves_what_was_made_of_it(store):
    run(store, LAST)
    (store.directory(MIDDLE) / SUCCESS).unlink()
    assert make_plan({"a": LAST}, store).todo == ()


def test_what_an_older_version_finished_stays_valid(store):
    """Its `_SUCCESS` names no inputs."""
    run(store, LAST)
    path = store.directory(LAST) / SUCCESS
    manifest = json.loads(path.read_text())
    del manifest["inputs"]
    path.write_text(json.dumps(manifest))
    run(store, ONE, force=("Number",))
    assert store.is_complete(LAST)
    assert LAST.fingerprint in {stage.fingerprint for stage in make_plan({"a": LAST}, store, force=("value=1",)).todo}


def test_a_run_that_had_to_remake_a_lost_input_ends_with_one_generation(store, dial, tmp_path):
    """The input of a finished cell is lost, and a new cell needs it; it comes out otherwise."""
    path = tmp_path / "cells.py"
    path.write_text(
        "from cong.experiment import Cell\nfrom toy import Number, Sum\nfrom test_generations import Dial\n"
        "def cells(scale, *, dial: str, new: bool = False):\n"
        "    source = Dial(path=dial)\n"
        "    numbers = (1.0, 2.0) if new else (1.0,)\n"
        "    return [Cell(stage=Sum(parts=(source, Number(value=v))), axes={'v': v}) for v in numbers]\n"
    )

    def job(*more):
        settings = [f"dial={dial.path}", *more]
        return prepare(path, scale="tiny", assignments=settings, resources=INLINE, store=store)

    launch.run(job())
    turn(dial, 5)
    (store.directory(dial) / "number.txt").unlink()
    launch.run(job("new=true"))
    cells = job("new=true").cells
    assert [read(store.directory(cell.stage)) for cell in cells] == [6, 7]


def test_the_record_names_the_generation_of_every_input(store):
    run(store, LAST)
    used = store.record(LAST)["input_generations"]
    assert used == {MIDDLE.fingerprint: store.generation(MIDDLE), TWO.fingerprint: store.generation(TWO)}
    assert (store.directory(LAST) / RECORD).exists()
