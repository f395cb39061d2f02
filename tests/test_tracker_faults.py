"""Nothing that MLflow refuses, raises or prints ends a run, or keeps it waiting."""

import re
import sqlite3
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import INLINE, Number

from cong.errors import UserError
from cong.experiment import Cell, collect
from cong.graph.plan import make_plan
from cong.graph.runner import Runner
from cong.graph.store import Store
from cong.tracking import Tracker, check_tracking, database, outbox, tracking_uri, ways_to_see
from cong.tracking.names import LONGEST_NAME, taken_names
from cong.tracking.outbox import Outbox
from cong.tracking.server import connect

NAME = "toy-tiny"


@pytest.fixture(autouse=True)
def own_database(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(database, "_LINKS", tmp_path / "links")


@pytest.fixture
def tracked_store(store, empty_database):
    (store.root / database.NAME).write_bytes(empty_database)
    return store


def track(store, cells, *, between=lambda tracker: None, name=NAME):
    tracker = Tracker(store=store, cells=cells, name=name, params={"scale": "toy"})
    between(tracker)
    plan = make_plan({cell.name: cell.stage for cell in cells}, store)
    Runner(store=store, resources=INLINE, observers=(tracker,), tracking_run=tracker.run_id).run(plan)
    tracker.close(collect(cells, store))
    return tracker


def runs(store, name=NAME):
    client = connect(tracking_uri(store))
    found = client.get_experiment_by_name(name)
    assert found is not None
    return {run.info.run_name: run for run in client.search_runs([found.experiment_id])}


def numbers(*axes):
    return [Cell(stage=Number(value=number), axes={axis: number}) for number, axis in enumerate(axes)]


@pytest.mark.parametrize("axis", ["pass@k", "lr (peak)", "w+s", "a//b", "../up", ".", "β∈[0,1]", "x" * 400, "%", ""])
def test_an_axis_of_any_name_is_tracked(tracked_store, axis, capsys):
    track(tracked_store, numbers(axis, "plain"))
    found = runs(tracked_store)
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert sum(run.data.metrics.get("number") == 0 for run in found.values()) == 2
    assert "is left out" not in capsys.readouterr().err


def test_measures_of_any_name_and_size_are_tracked_beside_the_others(tracked_store, monkeypatch, capsys):
    def summarize(self, ctx):
        ctx.log(1, **{"f1 (macro)!": 0.25, "loss": float("nan")})
        ctx.summary(**{"acc@1": 0.5, "acc_1": 0.25, "huge": 10**400, "nan": float("nan"), "text": "\ud800", "ok": True})

    monkeypatch.setattr(Number, "run", summarize)
    track(tracked_store, numbers("v"))
    metrics = runs(tracked_store)["v=0"].data.metrics
    assert (metrics["acc_1"], metrics["acc_1_2"], metrics["ok"]) == (0.25, 0.5, 1.0)
    errors = capsys.readouterr().err
    assert "'acc@1' is 'acc_1_2'" in errors
    assert "is left out" not in errors


@given(st.lists(st.text(max_size=300), max_size=8, unique=True))
def test_no_two_names_become_one_and_mlflow_takes_all(names):
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    found = taken_names(names)
    assert len(set(found.values())) == len(names)
    for name in found.values():
        _validate_metric_name(name)
        _validate_param_name(name)
        assert len(name) <= LONGEST_NAME
    assert all(
        other == name for name, other in found.items() if re.fullmatch(r"\w+", name) and len(name) <= LONGEST_NAME
    )


def test_more_params_and_tags_than_a_request_takes_are_sent_in_several(tracked_store):
    cell = Cell(stage=Number(), axes={f"axis{number}": number for number in range(230)})
    track(tracked_store, [cell])
    params = [run.data.params for run in runs(tracked_store).values()]
    assert max(map(len, params)) == 230


def test_a_deleted_experiment_is_restored_and_said_so(tracked_store, capsys):
    track(tracked_store, numbers("v"))
    client = connect(tracking_uri(tracked_store))
    client.delete_experiment(client.get_experiment_by_name(NAME).experiment_id)
    track(tracked_store, numbers("v", "w"))
    assert "had been deleted in MLflow, and is restored" in capsys.readouterr().err
    assert "w=1" in runs(tracked_store)


def test_an_experiment_that_is_deleted_during_a_run_costs_few_warnings(tracked_store, capsys):
    def delete(tracker):
        tracker._client.delete_experiment(tracker._experiment)

    track(tracked_store, numbers(*"abcdefgh"), between=delete)
    assert len(collect(numbers(*"abcdefgh"), tracked_store)) == 8
    assert capsys.readouterr().err.count("warning") <= outbox.MOST_WARNINGS + 2
    assert ways_to_see(tracked_store, name=NAME)


class Cloud(Exception):
    """What a cloud's library raises, of no class that anybody here knows."""


def refuse(error):
    def log(*given, **named):
        raise error

    return log


@pytest.mark.parametrize("error", [Cloud("no credentials"), ImportError("boto3"), PermissionError(13, "denied")])
def test_an_artifact_store_that_is_closed_costs_one_warning_and_no_number(tracked_store, capsys, error):
    def close(tracker):
        tracker._client.log_artifact = tracker._client.log_table = refuse(error)

    track(tracked_store, numbers("a", "b", "c"), between=close)
    assert capsys.readouterr().err.count("its artifact store takes no files") == 1
    found = runs(tracked_store)
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert found["b=1"].data.metrics["number"] == 1


def test_an_artifact_store_that_never_answers_keeps_nobody_waiting(tracked_store, capsys, monkeypatch):
    monkeypatch.setattr("cong.tracking.tracker.PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(outbox, "_FILES_SECONDS", 0.3)
    never = threading.Event()

    def hang(tracker):
        tracker._client.log_artifact = tracker._client.log_table = lambda *given, **named: never.wait(30)

    started = time.monotonic()
    track(tracked_store, numbers("a", "b"), between=hang)
    never.set()
    assert time.monotonic() - started < 25
    assert "takes no files in time" in capsys.readouterr().err
    assert runs(tracked_store)["a=0"].info.status == "FINISHED"


@pytest.mark.parametrize("error", [Cloud("?"), KeyError("x"), AttributeError("y")])
def test_an_error_of_any_class_leaves_one_entry_out(capsys, error):
    made = []
    box = Outbox("http://tracker", probe=lambda: None)
    box.send(refuse(error))
    box.send(lambda: made.append(1))
    assert made == [1]
    assert capsys.readouterr().err.count("this entry is left out") == 1


def test_an_entry_at_which_a_server_that_answers_always_fails_is_given_up(capsys):
    from mlflow.exceptions import MlflowException

    made = []
    box = Outbox("http://tracker", probe=lambda: None)
    box.send(refuse(MlflowException("Data too long for column")))
    box.send(lambda: made.append(1))
    box.wait(3)
    assert made == [1]


def test_a_server_that_only_times_out_costs_a_tenth_of_the_time(monkeypatch):
    box = Outbox("http://tracker", probe=refuse(ConnectionError()))

    def time_out():
        time.sleep(0.2)
        raise ConnectionError("timed out")

    box.send(time_out)
    assert box._next_try - time.monotonic() > 1.5


def test_a_tracker_can_be_copied_by_what_listens_to_trials(tracked_store):
    import cloudpickle

    tracker = track(tracked_store, numbers("v"))
    copy = cloudpickle.loads(cloudpickle.dumps(tracker))
    assert copy.run_id == tracker.run_id


def half_made(path, empty):
    path.write_bytes(empty)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM experiments")
        connection.execute("CREATE TABLE _alembic_tmp_tags (key TEXT)")


def not_a_database(path, empty):
    path.write_bytes(b"this is no database" * 100)


def truncated(path, empty):
    path.write_bytes(empty[: len(empty) // 3])


def nothing(path, empty):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [half_made, not_a_database, truncated, nothing])
def test_a_database_that_was_not_made_to_its_end_repairs_itself(store, empty_database, spoil):
    spoil(store.root / database.NAME, empty_database)
    check_tracking(store)
    assert len(list(store.root.glob("mlflow.db.unfinished-*"))) == 1


def test_a_database_with_runs_is_never_set_aside(tracked_store):
    track(tracked_store, numbers("v"))
    with sqlite3.connect(tracked_store.root / database.NAME) as connection:
        connection.execute("CREATE TABLE _alembic_tmp_tags (key TEXT)")
    check_tracking(tracked_store)
    assert "v=0" in runs(tracked_store)


def test_two_runs_that_begin_at_once_make_one_database(store):
    threads = [threading.Thread(target=check_tracking, args=(Store(store.root),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [path.name for path in store.root.glob("*mlflow.db*")] == ["mlflow.db"]
    check_tracking(store)


def test_a_database_that_cannot_be_used_leaves_the_run_untracked(store, capsys):
    (store.root / database.NAME).mkdir()
    track(store, numbers("v"))
    assert "the run continues untracked" in capsys.readouterr().err
    assert store.record(Number(value=0))["tracking_run"] is None
    assert ways_to_see(store, name=NAME)


def test_a_server_that_was_asked_for_and_cannot_be_used_is_one_line(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store.root}")
    with pytest.raises(UserError, match="MLflow at sqlite:"):
        Tracker(store=store, cells=[], name=NAME, params={})


@pytest.mark.parametrize("name", ["100%", "a?b", "c#d", "e%2Ff?g#h", "new\nline"])
def test_a_store_of_any_name_holds_its_own_database(tmp_path, empty_database, name):
    store = Store(tmp_path / "around" / name)
    store.prepare()
    (store.root / database.NAME).write_bytes(empty_database)
    track(store, numbers("v"))
    assert "v=0" in runs(store)
    with sqlite3.connect(store.root / database.NAME) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] == 3
    assert [path.name for path in (tmp_path / "around").iterdir()] == [name]
    assert len(list(store.root.rglob("record.json"))) == 2
