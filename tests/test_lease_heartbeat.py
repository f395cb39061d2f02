"""A heartbeat ends with its lease, and with nothing else."""

import json
import time

import pytest

from cong.graph.store import lease
from cong.graph.store.lease import LEASE, DirectoryLease


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT", 0.02)


def beat(directory):
    return json.loads((directory / LEASE).read_text())["beat"]


def goes_on(directory):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            before = beat(directory)
            time.sleep(0.1)
            if beat(directory) > before:
                return True
        except (ValueError, TypeError, FileNotFoundError):
            time.sleep(0.02)
    return False


@pytest.mark.parametrize("torn", ["", "{", '{"token": "', "null", "[]", "7", "\x00\x00", "\udcff"])
def test_a_torn_lease_file_is_written_again_by_its_holder(tmp_path, torn):
    with lease.hold(tmp_path) as held:
        assert held is not None
        (tmp_path / LEASE).write_bytes(torn.encode(errors="surrogateescape"))
        assert goes_on(tmp_path)
        (tmp_path / LEASE).write_bytes(torn.encode(errors="surrogateescape"))
        held.check()


@pytest.mark.parametrize(
    "error",
    [OSError("disk full"), ValueError("torn"), KeyError("token"), RuntimeError("lock"), MemoryError(), TypeError()],
)
def test_an_error_of_any_class_does_not_end_the_heartbeat(tmp_path, monkeypatch, capsys, error):
    with lease.hold(tmp_path):
        failures = [error] * 3
        renew = DirectoryLease._renew

        def fail(self):
            if failures:
                raise failures.pop()
            return renew(self)

        monkeypatch.setattr(DirectoryLease, "_renew", fail)
        assert goes_on(tmp_path)
    assert failures == []
    assert capsys.readouterr().err.count(f"lease heartbeat: {type(error).__name__}") == 3


def test_an_error_is_no_matter_where_standard_error_is_closed(tmp_path, monkeypatch):
    class Closed:
        def write(self, text):
            raise ValueError("I/O operation on closed file")

        def flush(self):
            raise ValueError("I/O operation on closed file")

    failures = [ValueError("torn")]
    renew = DirectoryLease._renew

    def fail(self):
        if failures:
            raise failures.pop()
        return renew(self)

    with lease.hold(tmp_path):
        monkeypatch.setattr("sys.stderr", Closed())
        monkeypatch.setattr(DirectoryLease, "_renew", fail)
        assert goes_on(tmp_path)


def test_a_torn_lease_is_not_taken_over_before_it_stood_still(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY", 0.5)
    monkeypatch.setattr(DirectoryLease, "poll_seconds", 0.05)
    (tmp_path / LEASE).write_text('{"token": "hal')
    assert not DirectoryLease(tmp_path).try_take(None, dead=False)
    started = time.monotonic()
    with lease.hold(tmp_path) as held:
        assert held is not None
        assert time.monotonic() - started > 0.4


def test_a_lease_that_another_has_is_lost_and_one_that_is_gone_too(tmp_path):
    with lease.hold(tmp_path) as held:
        assert held is not None
        (tmp_path / LEASE).write_text(json.dumps({"token": "theirs", "beat": 1}))
        with pytest.raises(lease.LeaseLost):
            held.check()
        (tmp_path / LEASE).unlink()
        with pytest.raises(lease.LeaseLost):
            held.check()


def test_a_lease_that_cannot_be_given_back_costs_nothing_that_was_made(tmp_path, monkeypatch, capsys):
    def fail(self):
        raise PermissionError(13, "denied")

    monkeypatch.setattr(DirectoryLease, "_give_back", fail)
    with lease.hold(tmp_path):
        pass
    assert "denied" in capsys.readouterr().err
