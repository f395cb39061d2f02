"""Two experiments of one file name in one store, and a token that meets a redirect."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cong.graph.resources import Resources
from cong.graph.store import Store
from cong.run import launch
from cong.run.job import Job, prepare
from cong.run.naming import SOURCE
from cong.run.records import RUNS
from cong.submit import dashboard

NUMBERS = Path(__file__).with_name("numbers_experiment.py")


def experiment(directory: Path, *, title: str) -> Path:
    directory.mkdir()
    path = directory / "numbers.py"
    path.write_text(NUMBERS.read_text().replace('"""', f'"""{title}. ', 1))
    return path


def prepared(path: Path, store: Store) -> Job:
    inline = Resources(name="inline").changed(ray=False, actors=0)
    return prepare(path, scale="tiny", assignments=[], resources=inline, store=store)


@pytest.fixture(autouse=True)
def local_tracking(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_two_experiments_of_one_file_name_keep_reports_and_runs_of_their_own(tmp_path, store):
    paths = [experiment(tmp_path / name, title=name) for name in ("first", "second")]
    pages = [launch.run(prepared(path, store)) for path in paths]
    assert pages[0] != pages[1]
    for page, title in zip(pages, ("first", "second"), strict=True):
        assert title in page.read_text()
    records = [json.loads(path.read_text()) for path in (store.root / RUNS).glob("*/*/run.json")]
    assert len({record["name"] for record in records}) == 2
    assert [prepared(path, store).name for path in paths] == [page.parent.name for page in pages]


def test_an_experiment_that_moved_keeps_its_name(tmp_path, store):
    path = experiment(tmp_path / "first", title="first")
    launch.run(prepared(path, store))
    moved = path.rename(tmp_path / "numbers.py")
    assert prepared(moved, store).name == "numbers-tiny"


def test_a_submitted_experiment_is_known_by_where_it_was_submitted_from(tmp_path, store, monkeypatch):
    path = experiment(tmp_path / "unpacked", title="packed")
    monkeypatch.setenv(SOURCE, "/home/ann/a/numbers.py")
    launch.run(prepared(path, store))
    assert prepared(path, store).name == "numbers-tiny"
    monkeypatch.setenv(SOURCE, "/home/ann/b/numbers.py")
    assert prepared(path, store).name.startswith("numbers-tiny-")


class Recorder(BaseHTTPRequestHandler):
    """Remembers the headers of every request, and redirects where its server was told to."""

    def do_GET(self):
        self.server.seen.append(dict(self.headers))  # pyright: ignore[reportAttributeAccessIssue]
        target = self.server.target  # pyright: ignore[reportAttributeAccessIssue]
        if target and not self.path.startswith("/there"):
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            return
        body = b'{"ray_version": "2.60.0"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def serving() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.seen, server.target = [], None  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("elsewhere", "sent"), [(True, False), (False, True)])
def test_a_token_follows_a_redirect_on_the_same_host_only(elsewhere, sent):
    with serving() as first, serving() as second:
        target = second if elsewhere else first
        first.target = f"http://127.0.0.1:{target.server_port}/there"  # pyright: ignore[reportAttributeAccessIssue]
        address = f"http://127.0.0.1:{first.server_port}"
        dashboard._fetch(address, "/api/version", {"Authorization": "Bearer hidden"})
        assert first.seen[0]["Authorization"] == "Bearer hidden"  # pyright: ignore[reportAttributeAccessIssue]
        assert ("Authorization" in target.seen[-1]) == sent  # pyright: ignore[reportAttributeAccessIssue]
