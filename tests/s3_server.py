"""An S3 server for tests: moto's, over HTTP, behind a door that counts the requests and can be shut."""

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest


class S3Server:
    """What was `seen` at `url`; nobody answers while it is `away`."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self._app = DomainDispatcherApplication(create_backend_app)
        # moto looks whether an object is there and then makes it: only one at a time, a conditional write is one step.
        self._one = threading.Lock()
        self.seen: list[tuple[str, str]] = []
        self.away = False
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _answer(self, environ, start_response):
        if self.away:
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        with self._one:
            self.seen.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            return [b"".join(self._app(environ, start_response))]

    def downloads(self) -> Counter:
        """Count what was read of outputs, by the last part of the name."""
        names = [path.rpartition("/")[2] for method, path in self.seen if method == "GET"]
        return Counter(name for name in names if "." in name)

    def end(self) -> None:
        self._server.shutdown()
        self._thread.join()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Yield a server with a bucket `bucket`, whose address and credentials are in the environment."""
    import s3fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    made = S3Server()
    # What moto holds is the process's, and an earlier server left it there.
    urlopen(Request(f"{made.url}/moto-api/reset", method="POST")).close()
    environment = {"AWS_ENDPOINT_URL": made.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
                   "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        # A file system that was opened before goes on speaking to the server of that time.
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield made
    s3fs.S3FileSystem.clear_instance_cache()
    made.end()
