"""The wheel: it holds everything of the package, and works where there is no checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from commands import QUICKSTART, ROOT

from cong import __version__

BUILD = "import setuptools.build_meta as backend; print(backend.build_wheel('dist'))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a copy: what earlier builds left beside the sources would go into it."""
    copy = tmp_path_factory.mktemp("wheel")
    for name in ("cong", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "-c", BUILD], cwd=copy, check=True, capture_output=True, text=True)
    return zipfile.ZipFile(next((copy / "dist").glob("*.whl")))


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the wheel is unpacked into."""
    directory = tmp_path_factory.mktemp("unpacked")
    wheel.extractall(directory)
    return directory


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(wheel):
    package = ROOT / "cong"
    files = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    # The READMEs beside the code link to each other within a checkout.
    sources = {str(path.relative_to(ROOT)) for path in files if path.name != "README.md"}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == sources
    assert {"cong/py.typed", "cong/profiles/laptop.toml", "cong/report/style.css"} <= sources


def test_the_starter_is_the_quickstart_itself_and_no_link(wheel, unpacked):
    starter = unpacked / "cong" / "cli" / "starter" / "quickstart.py"
    assert starter.read_bytes() == QUICKSTART.read_bytes()


def test_its_version_is_that_of_the_package_and_its_command_is_cong(wheel):
    named = {name.split("/")[-1]: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info/" in name}
    metadata = Parser().parsestr(named["METADATA"])
    assert metadata["Version"] == __version__
    assert {"judges", "downstream", "search", "vllm", "s3", "gcs"} <= set(metadata.get_all("Provides-Extra", []))
    assert "cong = cong.cli.app:main" in named["entry_points.txt"]


def test_a_starter_of_the_wheel_is_planned_outside_of_the_checkout(unpacked, tmp_path):
    code = """
import os, sys
import cong
from cong.cli.app import app
app(["init", "demo"], standalone_mode=False)
os.chdir("demo")
app(["plan", "quickstart.py", "--profile", "laptop.toml"], standalone_mode=False)
print("imported from", cong.__path__[0])
"""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"imported from {unpacked / 'cong'}" in done.stdout
    assert "ContrastiveGenerate" in done.stdout
