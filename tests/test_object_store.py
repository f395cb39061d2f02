"""A store in a bucket: on a real HTTP server that speaks S3, and a cache for each machine."""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from commands import EXPERIMENT, cong, one_line
from s3_server import S3Server, s3_server
from toy import Broken, Number, Sum, read, run, runs

from cong.errors import UserError
from cong.graph.plan import make_plan
from cong.graph.remote import Damaged, ObjectStore
from cong.graph.runner import StageFailed
from cong.graph.store import RECORD, SUCCESS, bucket, lease, store_at
from cong.graph.store.bucket import Bucket, BucketLease

pytest.importorskip("s3fs")
pytest.importorskip("moto")

ONE, TWO = Number(value=1), Number(value=2)
THREE = Sum(parts=(ONE, TWO))
FOREIGN = {"token": "theirs", "beat": 7, "host": "elsewhere", "pid": 1, "born": 0.0, "directory": "Number/x"}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as made:
        yield made


@pytest.fixture
def url(server, tmp_path, monkeypatch) -> str:
    """The URL of an empty store."""
    monkeypatch.setenv("CONG_CACHE", str(tmp_path / "here"))
    monkeypatch.setattr(bucket, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(BucketLease, "poll_seconds", 0.2)
    server.seen.clear()
    return f"s3://bucket/{tmp_path.name}"


@pytest.fixture
def remote(url) -> ObjectStore:
    store = ObjectStore(url)
    store.prepare()
    return store


@pytest.fixture
def elsewhere(url, remote, tmp_path, monkeypatch) -> ObjectStore:
    """The same store on another machine: with a cache that is empty."""
    monkeypatch.setenv("CONG_CACHE", str(tmp_path / "elsewhere"))
    return ObjectStore(url)


def test_a_run_is_found_finished_from_another_machine(remote, elsewhere):
    run(remote, THREE)
    assert runs(remote) == 3
    assert make_plan({"a": THREE}, elsewhere).todo == ()
    run(elsewhere, THREE)
    assert runs(elsewhere) == 0
    assert elsewhere.record(THREE)["results"] == {"number": 3.0}
    assert not elsewhere.directory(THREE).exists()
    elsewhere.fetch([THREE])
    assert read(elsewhere.directory(THREE)) == 3
    assert (elsewhere.directory(THREE) / SUCCESS).read_text() == (remote.directory(THREE) / SUCCESS).read_text()


def test_only_what_is_read_is_downloaded_and_only_once(remote, elsewhere, server):
    run(remote, Sum(parts=(THREE, ONE)), TWO)
    server.seen.clear()
    run(elsewhere, Sum(parts=(THREE, THREE)))
    run(elsewhere, Sum(parts=(THREE, Number(value=9))))
    assert runs(elsewhere) == 3
    assert server.downloads() == {"number.txt": 1, RECORD: 1}
    assert read(elsewhere.directory(THREE)) == 3
    assert not elsewhere.directory(ONE).exists()


def test_a_manifest_is_written_after_all_files_it_names(remote, server):
    run(remote, ONE)
    written = [path for method, path in server.seen if method == "PUT" and "_LEASE" not in path]
    assert SUCCESS in written[-1]
    assert sorted(path.rpartition("/")[2] for path in written[-3:-1]) == ["number.txt", RECORD]


def test_planning_two_hundred_stages_takes_one_listing(remote, server):
    stages = {str(value): Number(value=value) for value in range(200)}
    run(remote, stages["0"], stages["1"])
    server.seen.clear()
    plan = make_plan(stages, remote)
    assert len(plan.todo) == 198
    assert all(remote.is_complete(stages[name]) for name in "01")
    assert len(server.seen) == 1


def test_the_records_of_a_plan_are_read_once(remote, elsewhere, server):
    stages = {str(value): Number(value=value) for value in range(20)}
    run(remote, *stages.values())
    make_plan(stages, elsewhere)
    server.seen.clear()
    assert [elsewhere.record(stage)["results"]["number"] for stage in stages.values() for _ in range(3)]
    assert len(server.seen) == 20


@pytest.mark.parametrize("name", ["number.txt", RECORD])
@pytest.mark.parametrize("how", ["cut", "edited", "gone"])
def test_a_damaged_object_is_named_and_its_stage_recomputed(remote, elsewhere, name, how):
    run(remote, THREE)
    kept = Bucket(remote.url)
    key = next(key for key in kept.keys(f"Number/{ONE.slug}") if key.endswith(name))
    data = kept.read(key) or b""
    kept.remove(key) if how == "gone" else kept.write(key, data[:-1] if how == "cut" else data.replace(b"1", b"7"))
    again = Sum(parts=(ONE, Number(value=5)))
    with pytest.raises(StageFailed, match=rf"Damaged: Number\(value=1\) in s3://.*: {name}"):
        run(elsewhere, again)
    assert make_plan({"a": again}, elsewhere).todo == (ONE, again)
    run(elsewhere, again)
    assert read(elsewhere.directory(again)) == 6


def test_a_damaged_cache_is_mended_from_the_bucket(remote):
    run(remote, ONE, TWO)
    (remote.directory(ONE) / "number.txt").write_text("7.0")
    run(remote, THREE)
    assert read(remote.directory(THREE)) == 3
    assert runs(remote) == 3


def test_a_forced_stage_replaces_what_other_machines_had_fetched(remote, elsewhere):
    run(remote, ONE)
    elsewhere.fetch([ONE])
    before = elsewhere.edition(ONE)
    run(remote, ONE, force=("Number",))
    assert runs(remote) == 2
    elsewhere.fetch([ONE])
    assert elsewhere.edition(ONE) != before
    assert (elsewhere.directory(ONE) / SUCCESS).read_text() == (remote.directory(ONE) / SUCCESS).read_text()


def test_a_failed_stage_is_not_finished_and_its_lease_is_free(remote, elsewhere):
    with pytest.raises(StageFailed, match="broken"):
        run(remote, Broken())
    assert make_plan({"a": Broken()}, elsewhere).todo == (Broken(),)
    with elsewhere.hold(Broken(), while_waiting=lambda: False) as held:
        assert held is not None


def _run_in_process(url: str, cache: Path) -> None:
    os.environ["CONG_CACHE"] = str(cache)
    run(ObjectStore(url), Sum(parts=(Number(value=1), Number(value=2))))


def test_on_another_machine_a_store_has_another_cache(remote, tmp_path, monkeypatch):
    import pickle

    sent = pickle.dumps(remote)
    monkeypatch.setenv("CONG_CACHE", str(tmp_path / "elsewhere"))
    found = pickle.loads(sent)
    assert (found.url, found.root.parent) == (remote.url, tmp_path / "elsewhere")
    assert str(remote.root).encode() not in sent


def test_two_machines_at_once_compute_each_stage_once(remote, tmp_path):
    caches = [tmp_path / "first", tmp_path / "second"]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_run_in_process, args=(remote.url, cache)) for cache in caches]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len([mark for cache in caches for mark in cache.glob("*/marks/*")]) == 3


def _contend(url: str, wins: list[int], everyone: threading.Barrier) -> None:
    contender = BucketLease(Bucket(url), "_LEASE/Number/x", directory="Number/x")
    seen = contender.current()
    everyone.wait()
    wins.append(contender.try_take(seen, dead=True))
    contender.check() if wins[-1] else None


def test_of_many_who_find_a_lease_dead_one_takes_it_over(remote):
    for number in range(1, 6):
        wins: list[int] = []
        everyone = threading.Barrier(6)
        threads = [threading.Thread(target=_contend, args=(remote.url, wins, everyone)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(wins) == [False] * 5 + [True]
        assert len(Bucket(remote.url).keys("_LEASE")) == number


def test_who_looked_long_ago_does_not_take_a_lease_that_was_held_since(remote):
    slow, fast = (BucketLease(Bucket(remote.url), "_LEASE/Number/x", directory="Number/x") for _ in range(2))
    seen = slow.current()
    assert fast.try_take(fast.current(), dead=False)
    fast._give_back()
    assert not slow.try_take(seen, dead=False)
    assert slow.try_take(slow.current(), dead=False)


def test_a_silent_holder_on_another_machine_is_taken_over_after_the_expiry(remote, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY", 2.0)
    Bucket(remote.url).write(f"_LEASE/Number/{ONE.fingerprint}/00000001", json.dumps(FOREIGN).encode())
    started = time.monotonic()
    run(remote, ONE)
    assert time.monotonic() - started >= 2.0
    assert remote.is_complete(ONE)


def test_a_bucket_that_was_away_makes_no_lease_look_dead(remote, server, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY", 2.0)
    monkeypatch.setattr(lease, "HEARTBEAT", 0.5)
    Bucket(remote.url).write(f"_LEASE/Number/{ONE.fingerprint}/00000001", json.dumps(FOREIGN).encode())
    opened = threading.Timer(3.0, lambda: setattr(server, "away", False))
    looks = []

    def shut_at_the_second_look() -> bool:
        looks.append(time.monotonic())
        if len(looks) == 2:
            server.away = True
            opened.start()
        return False

    with remote.hold(ONE, while_waiting=shut_at_the_second_look) as held:
        assert held is not None
        assert time.monotonic() - looks[1] > 3.0 + 2.0


def test_a_lease_that_was_taken_over_publishes_nothing(remote, elsewhere):
    with remote.hold(ONE, while_waiting=lambda: False) as held:
        assert held is not None
        other = BucketLease(Bucket(remote.url), f"_LEASE/Number/{ONE.fingerprint}", directory="Number/x")
        assert other.try_take(other.current(), dead=True)
        (remote.directory(ONE) / "number.txt").write_text("1")
        with pytest.raises(lease.LeaseLost, match="was taken over"):
            remote.publish(ONE, {"results": {}}, check=held.check)
        assert not elsewhere.is_complete(ONE)
        other.check()


def test_two_who_publish_the_same_stage_do_not_mix_their_files(remote, elsewhere):
    for store, text in ((remote, "1"), (elsewhere, "1.0")):
        store.directory(ONE).mkdir(parents=True)
        (store.directory(ONE) / "number.txt").write_text(text)

    def meanwhile() -> None:
        elsewhere.publish(ONE, {"results": {}})

    remote.publish(ONE, {"results": {}}, check=meanwhile)
    elsewhere.fetch([ONE])
    assert (elsewhere.directory(ONE) / "number.txt").read_text() == "1"


def test_a_short_outage_is_waited_for(remote, server, capfd):
    make_plan({"a": ONE}, remote)
    server.away = True
    threading.Timer(2.0, lambda: setattr(server, "away", False)).start()
    run(remote, THREE)
    assert remote.is_complete(THREE)
    assert "waiting for it" in capfd.readouterr().err


def test_a_long_outage_fails_the_stage_and_a_second_run_goes_on(remote, server, monkeypatch):
    monkeypatch.setattr(bucket, "PATIENCE_SECONDS", 0.5)
    run(remote, ONE)
    plan = make_plan({"a": TWO}, remote)
    server.away = True
    with pytest.raises((StageFailed, OSError), match="cannot be used"):
        run(remote, *plan.todo)
    server.away = False
    run(remote, THREE)
    assert runs(remote) == 3


def test_a_cache_is_known_as_the_store_that_it_is_of(remote):
    run(remote, ONE)
    remote.fetch([ONE])
    found = store_at(remote.root)
    assert isinstance(found, ObjectStore)
    assert found.url == remote.url


def test_what_a_fetch_found_damaged_is_an_error_of_its_own(remote, elsewhere):
    run(remote, ONE)
    Bucket(remote.url).remove(f"{SUCCESS}/Number/{ONE.fingerprint}")
    with pytest.raises(Damaged, match=r"is not in s3://.* any more"):
        elsewhere.fetch([ONE])


def test_a_file_system_that_creates_a_thing_twice_is_refused(remote, monkeypatch):
    import s3fs

    whole = s3fs.S3FileSystem._pipe_file

    async def forgetful(self, path, data, mode="overwrite", **options):
        return await whole(self, path, data, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", forgetful)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="can hold no lease"):
        ObjectStore(remote.url).prepare()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def inline(tmp_path) -> list[str]:
    """Options of a run in one process."""
    profile = tmp_path / "inline.toml"
    profile.write_text("[cluster]\nray = false\n[decoding]\nactors = 0\n")
    return ["--profile", str(profile)]


def test_a_run_is_reported_on_from_another_machine(url, server, tmp_path, inline):
    ours, theirs = ({"CONG_CACHE": str(tmp_path / name)} for name in ("ours", "theirs"))
    code, output = cong("run", str(EXPERIMENT), "--store", url, *inline, env=ours)
    assert code == 0, output
    assert "2 stages computed" in output
    code, output = cong("status", "numbers_experiment", "--store", url, env=theirs)
    assert code == 0, output
    assert "2 finished" in output
    code, output = cong("report", str(EXPERIMENT), "--store", url, env=theirs)
    assert code == 0, output
    assert "value" in Path(output.split()[-1]).with_suffix(".md").read_text()
    code, output = cong("plan", str(EXPERIMENT), "--store", url, env=theirs)
    assert "2 stages: 0 to run" in output
    pages = [key for key in Bucket(url).keys("reports") if key.endswith(".html")]
    assert pages == ["reports/numbers_experiment-tiny/numbers_experiment-tiny.html"]


def test_what_runs_on_another_machine_is_shown(remote, elsewhere):
    from cong.run import status

    with remote.hold(ONE, while_waiting=lambda: False):
        elsewhere.mirror()
        assert [stage.state for stage in status.all_stages(elsewhere.root)] == [status.RUNNING]
    elsewhere.mirror()
    assert [stage.state for stage in status.all_stages(elsewhere.root)] == [status.BEGUN]
    run(remote, ONE)
    elsewhere.mirror()
    assert [stage.state for stage in status.all_stages(elsewhere.root)] == [status.FINISHED]


@pytest.mark.parametrize(
    ("place", "environment", "message"),
    [
        ("s3://no-such-bucket/x", {}, "there is no bucket no-such-bucket"),
        ("s3://bucket/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Could not connect to the endpoint"),
        ("gs://bucket/x", {"PYTHONPATH": "{without}"}, "pip install 'cong[gcs]'"),
        ("s3://bucket/x", {"PYTHONPATH": "{without}"}, "pip install 'cong[s3]'"),
        ("nonsense://bucket/x", {}, "Protocol not known: nonsense"),
    ],
    ids=["no bucket", "nobody there", "no gcsfs", "no s3fs", "no such protocol"],
)
def test_a_store_that_cannot_be_reached_is_one_line(server, tmp_path, place, environment, message):
    # Packages of these names that cannot be imported, whether or not the real ones are installed.
    for name in ("s3fs", "gcsfs"):
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    known = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {name: value.format(without=known) for name, value in environment.items()}
    one_line(*cong("run", str(EXPERIMENT), "--store", place, env=env | {"CONG_CACHE": str(tmp_path)}), message)
    assert not list(tmp_path.glob("began-*"))


def test_wrong_credentials_are_one_line(server, tmp_path, monkeypatch):
    answer = b"<Error><Code>InvalidAccessKeyId</Code><Message>The key is not known.</Message></Error>"

    def refuse(environ, start_response):
        start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(answer)))])
        return [answer]

    monkeypatch.setattr(server, "_app", refuse)
    one_line(*cong("plan", str(EXPERIMENT), "--store", "s3://bucket/x", env={"CONG_CACHE": str(tmp_path)}),
             "PermissionError: The key is not known.")  # fmt: skip


def test_a_submitted_job_is_given_the_url():
    from cong.cli.jobs import _shared_store
    from cong.submit.jobs import Submission, entry_point
    from cong.submit.packing import Packed

    store = _shared_store("s3://bucket/runs", cluster=cast(Any, None))
    packed = Packed(root=Path(), archive=b"", files=0, left_out=(), experiment="e.py", profile="p.toml")
    submission = Submission(name="e", packed=packed, options=(), store=store, environment={})
    assert "--store s3://bucket/runs " in entry_point(submission)


def test_a_file_system_that_only_looks_before_it_creates_is_refused(tmp_path):
    with pytest.raises(UserError, match="can hold no lease"):
        ObjectStore(f"file://{tmp_path}").prepare()


def test_empty_files_and_directories_come_through(remote, elsewhere):
    inner = remote.directory(ONE) / "model" / "shards"
    inner.mkdir(parents=True)
    (inner / "a=1,b+c (2)#.bin").write_bytes(os.urandom(1 << 16))
    (inner / "empty").touch()
    remote.publish(ONE, {"results": {}})
    elsewhere.fetch([ONE])
    found = elsewhere.directory(ONE) / "model" / "shards"
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {
        path.name: path.read_bytes() for path in inner.iterdir()
    }


def test_the_lease_of_a_process_that_is_gone_from_this_machine_is_taken_over_at_once(remote):
    gone = {"token": "theirs", "beat": 7, **lease.this_process(), "born": 0.0, "directory": "Number/x"}
    Bucket(remote.url).write(f"_LEASE/Number/{ONE.fingerprint}/00000001", json.dumps(gone).encode())
    started = time.monotonic()
    run(remote, ONE)
    assert time.monotonic() - started < lease.EXPIRY / 2


def test_a_prefix_is_no_key_also_when_something_comes_up_below_it_meanwhile(remote, monkeypatch):
    import s3fs

    kept = Bucket(remote.url)
    kept.write("_LEASE/Number/x/00000001", b"1")
    monkeypatch.setattr(s3fs.S3FileSystem, "find", lambda self, path, **options: [path.rstrip("/")])
    assert kept.keys("_LEASE/Number/x") == []
