"""What a user can mend is one line: file systems without locks, addresses of Ray Client, errors of the system."""

import errno
import fcntl
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from cong.cli import app as cli
from cong.cli.doctor import _findings
from cong.errors import UserError
from cong.graph.cluster import connected
from cong.graph.resources import Resources
from cong.graph.store import Store
from cong.submit import dashboard
from cong.tracking import check_tracking


@pytest.fixture(params=["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EINVAL"])
def no_locks(request, monkeypatch):
    number = getattr(errno, request.param)

    def refuse(*given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_file_system_without_locks_is_refused_before_anything_starts(tmp_path, no_locks):
    with pytest.raises(UserError, match="has no locks"):
        Store(tmp_path / "store").prepare()
    assert list((tmp_path / "store").iterdir()) == []


def test_doctor_says_that_a_file_system_has_no_locks(tmp_path, no_locks, monkeypatch):
    for look in ("_package", "_device", "_tracking", "_ray"):
        monkeypatch.setattr(f"cong.cli.doctor.{look}", lambda *given: None)
    monkeypatch.setattr("cong.cli.doctor._hub", lambda: None)
    (finding,) = [found for found in _findings(Resources(name="x"), Store(tmp_path)) if found and found.name == "store"]
    assert not finding.good
    assert "has no locks" in finding.text


def test_a_file_system_with_locks_is_taken(tmp_path):
    Store(tmp_path / "store").prepare()


@pytest.fixture
def without_ray(monkeypatch):
    """A process that has no Ray yet, whatever other tests have started."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("address", ["ray://head:10001", "ray://10.0.0.1", "http://head:8265", "ray://[::1]:10001"])
def test_an_address_of_ray_client_is_refused_with_what_to_use(address):
    with (
        pytest.raises(UserError, match=r"is not for a run.*--address auto.*cong submit with"),
        connected(Resources(name="x").changed(address=address)),
    ):
        pass


@pytest.mark.usefixtures("without_ray")
def test_the_environments_address_of_ray_client_is_refused_too(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with (
        pytest.raises(UserError, match="ray:// is not for a run"),
        connected(Resources(name="x").changed(address="auto")),
    ):
        pass


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["cong", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), IsADirectoryError(21, "Is a directory")])
def test_an_error_of_the_system_has_a_traceback_with_debug_only(monkeypatch, capsys, error, tmp_path):
    def fail(store):
        raise error

    monkeypatch.setattr(cli, "opened", fail)
    assert main(monkeypatch, "status", "--store", str(tmp_path)) == 2
    plain = capsys.readouterr().err
    assert plain.count("\n") == 1
    assert "--debug shows where" in plain
    for arguments in (("--debug", "status"), ("status", "--debug")):
        assert main(monkeypatch, *arguments, "--store", str(tmp_path)) == 2
        assert "Traceback" in capsys.readouterr().err


def test_a_users_mistake_has_no_hint_at_a_traceback(monkeypatch, capsys, tmp_path):
    assert main(monkeypatch, "status", "--store", str(tmp_path / "none")) == 2
    assert "debug" not in capsys.readouterr().err


def answering(body, *, status=200, kind="text/html"):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


PAGES = {
    "a page": (b"<html>Please log in</html>", 200, "text/html"),
    "an empty answer": (b"", 200, "text/plain"),
    "a list": (b"[]", 200, "application/json"),
    "another service": (json.dumps({"login": "https://sso"}).encode(), 200, "application/json"),
    "half of a dashboard": (json.dumps({"ray_version": "2.60.0"}).encode(), 200, "application/json"),
    "data of another form": (json.dumps({"ray_version": "2.60.0", "data": []}).encode(), 200, "application/json"),
    "forbidden": (b"<html>Forbidden</html>", 403, "text/html"),
}


@pytest.mark.parametrize("page", PAGES)
def test_what_answers_in_place_of_a_dashboard_is_one_line(page):
    body, status, kind = PAGES[page]
    server, address = answering(body, status=status, kind=kind)
    with pytest.raises(UserError) as told:
        dashboard.reach(address)
    assert "\n" not in str(told.value)
    server.shutdown()


@pytest.mark.parametrize("page", ["a page", "forbidden", "a list"])
def test_what_answers_in_place_of_a_tracking_server_is_one_line(page, tmp_path, monkeypatch):
    body, status, kind = PAGES[page]
    server, address = answering(body, status=status, kind=kind)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match=f"MLflow at {address}") as told:
        check_tracking(Store(tmp_path))
    assert "\n" not in str(told.value)
    server.shutdown()
