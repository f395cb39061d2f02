"""A store in a bucket under a Ray cluster whose nodes share no directory."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from s3_server import s3_server

pytest.importorskip("s3fs")
pytest.importorskip("moto")


@pytest.fixture
def short_path():
    # Ray's sockets lie in this directory, and the path of a socket is short.
    directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="cong"))
    yield directory
    shutil.rmtree(directory)


def test_a_stage_keeps_to_one_node_and_its_readers_find_it_on_others(short_path):
    program = Path(__file__).with_name("nodes_with_caches.py")
    caches = {"RAY_TMPDIR": str(short_path), "CONG_CACHE": str(short_path / "driver"), "RAY_AUTH_MODE": "disabled"}
    with s3_server():
        done = subprocess.run(
            [sys.executable, program, "s3://bucket/nodes"],
            env=os.environ | caches, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [len(nodes) for nodes in found["nodes"]] == [1, 1, 1]
    assert found["rows"] == [40, 40, 40]
    assert not any(cache.startswith(caches["CONG_CACHE"]) for cache in found["caches"])
    assert not list((short_path / "driver").glob("*/Spread/*/rows.parquet"))
