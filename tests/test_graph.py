"""Store, leases, plan and runner, on stages of numbers."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from toy import INLINE, Broken, Held, Holding, Huge, Number, Slow, Sum, read, run, runs

from cong.errors import UserError
from cong.graph import runner
from cong.graph.demand import Demand
from cong.graph.execute import Assignment
from cong.graph.journal import append_metrics, read_metrics, read_progress, truncate_metrics, write_progress
from cong.graph.plan import make_plan
from cong.graph.resources import Resources, load_profile
from cong.graph.runner import Runner, StageFailed
from cong.graph.stage import topological
from cong.graph.store import RECORD, SUCCESS, Store, lease

ONE, TWO = Number(value=1), Number(value=2)
THREE = Sum(parts=(ONE, TWO))


def test_a_stage_runs_once_however_many_need_it(store):
    run(store, Sum(parts=(THREE, ONE)), Sum(parts=(THREE, TWO)))
    assert runs(store) == 5
    run(store, Sum(parts=(THREE, ONE)))
    assert runs(store) == 5
    assert read(store.directory(THREE)) == 3


def test_inputs_come_before_what_needs_them_and_each_once():
    order = topological([Sum(parts=(THREE, ONE)), THREE])
    assert [stage.title for stage in order] == ["Number(value=1)", "Number(value=2)", "Sum", "Sum"]


def test_the_record_says_what_was_done(store):
    run(store, THREE)
    record = store.record(THREE)
    assert record["fingerprint"] == THREE.fingerprint
    assert record["inputs"] == [f"Number/{ONE.slug}", f"Number/{TWO.slug}"]
    assert record["results"] == {"number": 3.0}
    assert record["seconds"] >= 0
    assert record["gpu_seconds"] == 0
    assert record["versions"]["torch"]
    assert record["resources"]["name"] == "inline"


def test_inputs_of_a_finished_stage_are_not_needed(store):
    run(store, THREE)
    (store.directory(ONE) / SUCCESS).unlink()
    plan = make_plan({"a": THREE}, store)
    assert plan.todo == ()
    assert plan.state(ONE) == "not needed"


def test_force_recomputes_a_stage_and_keeps_the_old_one_aside(store):
    run(store, THREE)
    run(store, THREE, force=("Sum",))
    assert runs(store) == 4
    assert list((store.root / ".discarded").glob("Sum-*/number.txt"))
    assert store.is_complete(THREE)


def test_forcing_an_unknown_stage_names_those_that_there_are(store):
    with pytest.raises(UserError, match="there are Number, Sum"):
        make_plan({"a": THREE}, store, force=("Nonsense",))


@pytest.mark.parametrize("name", ["number.txt", RECORD, SUCCESS])
def test_a_truncated_file_is_found_and_the_stage_recomputed(store, name):
    run(store, ONE)
    path = store.directory(ONE) / name
    path.write_bytes(path.read_bytes()[:-3])
    assert not store.is_complete(ONE)
    run(store, ONE)
    assert runs(store) == 2
    assert store.is_complete(ONE)


def test_a_record_edited_by_hand_is_found(store):
    run(store, ONE)
    path = store.directory(ONE) / RECORD
    path.write_text(path.read_text().replace('"number": 1', '"number": 9'))
    assert "changed after" in (store.fault(ONE) or "")
    assert "to run (record.json was changed" in make_plan({"a": ONE}, store).state(ONE)


def test_a_missing_output_is_found(store):
    run(store, ONE)
    (store.directory(ONE) / "number.txt").unlink()
    assert store.fault(ONE) == "number.txt is missing"


def test_a_store_that_was_copied_is_still_complete(store, tmp_path):
    import shutil

    run(store, ONE)
    shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert Store(tmp_path / "copy").is_complete(ONE)


def test_a_half_written_stage_is_not_complete_and_what_it_left_is_kept(store):
    directory = store.directory(ONE)
    directory.mkdir(parents=True)
    (directory / "started.txt").write_text("half")
    assert store.fault(ONE) == "not finished"
    run(store, ONE)
    assert (directory / "started.txt").read_text() == "half"


def test_unfinished_work_on_inputs_that_were_remade_is_not_continued(store):
    run(store, ONE, TWO)
    directory = store.directory(THREE)
    directory.mkdir(parents=True)
    (directory / ".basis").write_text("of other inputs")
    (directory / "started.txt").write_text("half")
    run(store, THREE)
    assert not (directory / "started.txt").exists()
    assert list((store.root / ".discarded").glob("Sum-*/started.txt"))


def test_a_kill_while_a_corrupt_stage_is_cleared_leaves_it_corrupt(store, monkeypatch):
    run(store, ONE)
    (store.directory(ONE) / "number.txt").write_text("9.0 ")
    moved = []

    def die_at_the_second(source, target):
        moved.append(Path(source).name)
        if len(moved) == 2:
            raise KeyboardInterrupt
        Path(source).rename(target)

    monkeypatch.setattr("cong.graph.execute.os.replace", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(store, ONE)
    monkeypatch.undo()
    assert SUCCESS not in moved
    assert not store.is_complete(ONE)
    run(store, ONE)
    assert read(store.directory(ONE)) == 1


def test_forcing_a_stage_clears_what_an_unfinished_run_left(store):
    directory = store.directory(ONE)
    directory.mkdir(parents=True)
    (directory / "broken.txt").write_text("half")
    run(store, ONE, force=("Number",))
    assert not (directory / "broken.txt").exists()


def test_every_failure_is_named_also_of_stages_with_the_same_title(store):
    with pytest.raises(StageFailed) as failed:
        run(store, Broken(), Broken(source=ONE))
    assert len(failed.value.failures) == 2


def test_what_a_failed_stage_held_is_let_go_while_its_error_lives(store):
    """Were it an actor of Ray Data, then its CPUs would be kept from the next stage of the same worker."""
    task = Assignment(stage=Holding(), store=store, resources=INLINE, provenance={})
    with pytest.raises(RuntimeError, match="broken with 1 held") as kept:
        runner._execute_with_log(task)
    assert not Held.alive
    assert kept.value is not None


def test_a_failing_stage_is_named_and_the_others_are_computed(store):
    good = Sum(parts=(ONE, TWO))
    with pytest.raises(StageFailed, match="Broken: RuntimeError: this stage is broken in two lines"):
        run(store, Sum(parts=(Broken(), ONE)), good)
    assert store.is_complete(good)
    assert not store.is_complete(Broken())


def test_a_demand_that_nothing_can_meet_is_refused_with_numbers(store, ray_of_two_cpus):
    with pytest.raises(UserError, match=r"Huge\(value=1\) needs 100000 CPUs, the cluster has 2"):
        run(store, Huge(), resources=Resources(name="ray").changed(cpus=2))


def test_stages_run_as_ray_tasks_with_their_output_in_a_log(store, ray_of_two_cpus):
    run(store, THREE, resources=Resources(name="ray").changed(cpus=2))
    assert read(store.directory(THREE)) == 3
    with pytest.raises(StageFailed, match="broken"):
        run(store, Broken(), resources=Resources(name="ray").changed(cpus=2))
    assert "Traceback" in (store.directory(Broken()) / ".log.txt").read_text()


def _run_in_process(root: Path) -> None:
    run(Store(root), Sum(parts=(Slow(seconds=1.5), ONE)))


def test_two_processes_at_once_compute_each_stage_once(store):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_run_in_process, args=(store.root,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert runs(store) == 3


def _hold_for_ever(directory: Path) -> None:
    with lease.hold(directory):
        time.sleep(600)


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_hold_for_ever, args=(tmp_path,))
    process.start()
    _wait_until(lambda: lease.holder(tmp_path) is not None)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert lease.holder(tmp_path) is None
    started = time.monotonic()
    with lease.hold(tmp_path) as held:
        assert held is not None
        assert time.monotonic() - started < lease.EXPIRY / 2


def test_a_silent_holder_on_another_host_is_taken_over_after_the_expiry(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY", 2.0)
    foreign = {"token": "theirs", "beat": 7, "host": "elsewhere", "pid": 1, "born": 0.0}
    (tmp_path / ".lease.json").write_text(json.dumps(foreign))
    started = time.monotonic()
    with lease.hold(tmp_path) as held:
        assert held is not None
        assert time.monotonic() - started >= 2.0


def test_a_holder_that_was_taken_over_must_not_publish(tmp_path):
    with lease.hold(tmp_path) as held:
        assert held is not None
        (tmp_path / ".lease.json").write_text(json.dumps({"token": "theirs", "beat": 1}))
        with pytest.raises(lease.LeaseLost):
            held.check()


def test_threads_of_one_process_exclude_each_other(tmp_path):
    inside, most = [], []

    def work() -> None:
        with lease.hold(tmp_path):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.2)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1, 1, 1]


def test_a_store_that_cannot_be_written_is_one_clear_line():
    with pytest.raises(UserError, match="the store /proc/nowhere cannot be written"):
        Store(Path("/proc/nowhere")).prepare()


def test_curves_are_read_from_where_one_stopped_and_cut_after_a_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, 1, loss=2.0)
    points, offset = read_metrics(path)
    append_metrics(path, 2, loss=1.0)
    with path.open("a") as file:
        file.write('{"step": 3')
    later, _ = read_metrics(path, offset=offset)
    assert [point["step"] for point in points + later] == [1, 2]
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    append_metrics(path, 4, loss=0.25)
    append_metrics(path, 5, loss=0.125)
    assert [point["step"] for point in read_metrics(path)[0]] == [1, 2, 5]
    _, offset = read_metrics(path)
    truncate_metrics(path, last_step=2)
    assert [point["step"] for point in read_metrics(path, offset=offset)[0]] == [1, 2]
    append_metrics(path, 3, loss=0.5, learning_rate=0.0001, gradient_norm=1.0, tokens_per_second=1234.5678901234567)
    append_metrics(path, 4, loss=0.5, learning_rate=0.0001, gradient_norm=1.0, tokens_per_second=1234.5678901234567)
    assert [point["step"] for point in read_metrics(path, offset=offset)[0]] == [1, 2, 3, 4]
    truncate_metrics(path, last_step=1)
    assert [point["step"] for point in read_metrics(path)[0]] == [1]


def test_the_speed_of_a_resumed_stage_counts_from_where_it_began(tmp_path):
    path = tmp_path / "progress.json"
    before = time.time()
    write_progress(path, done=50, total=100, unit="rows")
    begun = time.time()
    time.sleep(0.2)
    until = time.time()
    write_progress(path, done=60, total=100, unit="rows")
    after = time.time()
    progress = read_progress(path)
    assert progress is not None
    assert progress.first == 50
    assert 10 / (after - before) <= progress.rate <= 10 / (until - begun)
    assert progress.seconds_left == pytest.approx(40 / progress.rate)


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(UserError, match="known are gpu24x1, gpu80x1, h100x32, h100x8, h200x8, l40x4, laptop"):
        load_profile("nonsense")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpus = 3\n", r"gpus = 3 is no table; the tables of a profile are \[cluster\] \(ray, address"),
        ("[hardware]\ngpus = 3\n", r"unexpected keyword argument 'gpus'; the tables of a profile are"),
        ("decoding = 3\n", r"decoding = 3 is no table"),
    ],
)
def test_a_profile_with_a_wrong_setting_names_the_tables(tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_profile(str(tmp_path / "mine.toml"))


def test_no_more_runs_at_once_than_fits(store, ray_of_two_cpus):
    free = Demand(cpus=2)
    assert Demand(cpus=2).fits(free)
    assert not Demand(cpus=2.5).fits(free)
    assert not Demand(cpus=1, gpus=1).fits(free)


def test_a_plan_of_ten_thousand_cells_takes_seconds(store):
    cells = {str(number): Sum(parts=(THREE, Number(value=number))) for number in range(10_000)}
    plan = make_plan(cells, store)
    assert len(plan.todo) == 20_001


def test_an_observer_hears_of_every_stage(store):
    heard = []

    class Listener:
        def started(self, stage):
            heard.append(("started", stage.title))

        def finished(self, stage, outcome):
            heard.append((outcome, stage.title))

        def failed(self, stage, error):
            heard.append(("failed", stage.title))

        def tick(self, running):
            pass

    plan = make_plan({"a": ONE, "b": Broken()}, store)
    with pytest.raises(StageFailed):
        Runner(store=store, resources=INLINE, observers=(Listener(),)).run(plan)
    assert set(heard) == {
        ("started", ONE.title), ("made", ONE.title), ("started", "Broken"), ("failed", "Broken"),
    }  # fmt: skip


def _wait_until(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
