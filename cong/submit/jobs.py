"""Ray Jobs from the client's side: submit an experiment, follow its log, cancel it. Nothing else talks to Ray Jobs.

    jobs = Jobs(reach("http://head:8265"))
    job = jobs.submit(submission)       # sends the project and starts the job; returns its id
    code = jobs.follow(job)             # prints the log as it comes; returns the job's exit code

Ray shows a job's environment, entry point and metadata to everybody who can open the dashboard (2.60 means to hide the
values from browsers, but not from its REST interface), and writes them into the logs of its agents. So no secret goes
with a job: what a name or a value gives away as one is refused, and has to be set on the cluster's nodes.
"""

import asyncio
import contextlib
import logging
import os
import re
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cong.errors import UserError
from cong.graph.cluster import explain
from cong.graph.execute import COMMIT, commit
from cong.run.records import JOB_ID
from cong.submit.dashboard import Cluster
from cong.submit.packing import Packed

HANDED_ON = ("MLFLOW_TRACKING_URI", "HF_HOME", "CONG_MIRROR", "AWS_ENDPOINT_URL")
KEPT_BACK = ("HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
EXPERIMENT = "cong.experiment"
STORE = "cong.store"
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.5
_NO_AGENT = "No available agent"
"""What Ray says, with status 500, while the agents of its nodes are starting."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is to be run, and how."""

    name: str
    packed: Packed
    options: tuple[str, ...]
    """Options of `cong run` beside profile, store and address."""
    store: str
    """Directory that the nodes share, or URL."""
    environment: Mapping[str, str]


def environment(given: list[str]) -> dict[str, str]:
    """Return the variables that a job gets; raise `UserError` for one that is, or holds, a secret."""
    found = {name: os.environ[name] for name in HANDED_ON if os.environ.get(name)}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"--env {text}: write KEY=VALUE")
        if _SECRET.search(name):
            raise UserError(f"--env {name}: {_not_sent(name)}")
        found[name] = value
    for name, value in found.items():
        if urlsplit(value).password:
            raise UserError(f"{name} holds a password: {_not_sent(name)}")
    return found


def kept_back() -> list[str]:
    """Return the secrets of this environment that a job could miss and does not get, each with what to do."""
    return [f"{name} is set here: {_not_sent(name)}" for name in KEPT_BACK if os.environ.get(name)]


def _not_sent(name: str) -> str:
    return f"Ray shows a job's environment to everybody who can open the dashboard; set {name} on the cluster's nodes"


def entry_point(submission: Submission) -> str:
    """Return the command that runs on the cluster."""
    packed = submission.packed
    where = ["--profile", packed.profile, "--store", submission.store, "--address", "auto"]
    return shlex.join(["python", "-m", "cong", "run", packed.experiment, *submission.options, *where])


class Jobs:
    """The jobs of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        from ray.job_submission import JobSubmissionClient

        for module in ("dashboard_sdk", "job.sdk"):
            logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
        self._address = cluster.address
        # Ray prefers this variable, and RAY_ADDRESS, to the address that its client is given.
        os.environ["RAY_API_SERVER_ADDRESS"] = cluster.address
        with self._reported():
            self._client = JobSubmissionClient(cluster.address, headers=dict(cluster.headers))

    def submit(self, submission: Submission) -> str:
        """Send the project and start the job; return its id."""
        job_id = f"cong-{submission.name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
        known = {COMMIT: found} if (found := commit()) else {}
        variables = {**submission.environment, **known, JOB_ID: job_id}
        with tempfile.TemporaryDirectory() as directory, self._reported():
            archive = Path(directory) / "project.zip"
            archive.write_bytes(submission.packed.archive)
            self._start(
                entrypoint=entry_point(submission),
                submission_id=job_id,
                runtime_env={"working_dir": str(archive), "env_vars": variables},
                metadata={EXPERIMENT: submission.name, STORE: submission.store},
            )
        return job_id

    def _start(self, **job: Any) -> None:
        """Start a job; a cluster that is only just up has no agent yet that would take it."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self._client.submit_job(**job)
                return
            except RuntimeError as error:
                if _NO_AGENT in str(error) and time.monotonic() < end:
                    time.sleep(_POLL_SECONDS)
                    continue
                reason = " ".join(str(error).split())[:300]
                raise UserError(f"Ray at {self._address} did not take the job: {reason}") from error

    def follow(self, job_id: str) -> int:
        """Print a job's log until the job ends; return its exit code. A lost connection is taken up again."""
        import aiohttp

        printed, lost_at = 0, None
        while True:
            try:
                printed = asyncio.run(self._print_log(job_id, printed))
                details = self.job(job_id)
                if details.status.is_terminal():
                    return _outcome(details)
                lost_at = None
            except (UserError, RuntimeError, OSError, aiohttp.ClientError) as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > _PATIENCE_SECONDS:
                    raise UserError(f"lost Ray at {self._address}: {error}; the job may go on") from error
            time.sleep(_POLL_SECONDS)

    async def _print_log(self, job_id: str, printed: int) -> int:
        """Print what comes after the first `printed` characters, and return how many there are now."""
        seen = 0
        async for text in self._client.tail_job_logs(job_id):
            print(text[max(printed - seen, 0) :], end="", flush=True)
            seen += len(text)
            printed = max(printed, seen)
        return printed

    def log(self, job_id: str) -> str:
        """Return what a job has printed."""
        self.job(job_id)
        with self._reported():
            return self._client.get_job_logs(job_id)

    def cancel(self, job_id: str) -> bool:
        """Stop a job and wait until it has ended; return False when it had ended before."""
        if self.job(job_id).status.is_terminal():
            return False
        with self._reported():
            self._client.stop_job(job_id)
        while not self.job(job_id).status.is_terminal():
            time.sleep(_POLL_SECONDS)
        return True

    def job(self, job_id: str) -> Any:
        """Return Ray's details of a job; raise `UserError` when there is none of that id."""
        try:
            with self._reported():
                return self._client.get_job_info(job_id)
        except RuntimeError as error:
            if "404" not in str(error):
                raise
            known = ", ".join(item.submission_id for item in self.list()[:3]) or "none"
            raise UserError(f"there is no job {job_id} at {self._address}; the latest are {known}") from error

    def list(self) -> list[Any]:
        """Return the jobs that were submitted to the cluster, the latest first."""
        with self._reported():
            found = [item for item in self._client.list_jobs() if item.submission_id]
        return sorted(found, key=lambda item: -(item.start_time or 0))

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        from ray.exceptions import AuthenticationError

        try:
            yield
        except (AuthenticationError, ConnectionError) as error:
            raise UserError(explain(error, self._address)) from error


def _outcome(details: Any) -> int:
    status, code = details.status.value, details.driver_exit_code
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        print(f"job {details.submission_id} was cancelled")
    elif code is None:
        # The entry point was never reached, or its node died: its log cannot say so.
        print(f"job {details.submission_id} failed: {details.message}")
    return code if status == "FAILED" and code in (1, 2) else 1
