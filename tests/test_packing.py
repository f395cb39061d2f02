"""What is sent to a cluster, and what is not."""

import io
import zipfile
from pathlib import Path

import pytest

from cong.errors import UserError
from cong.graph.resources import profile_path
from cong.submit import packing

PROFILE = profile_path("laptop")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, text in {
        ".gitignore": "*.log\n/data/\n!keep.log\n",
        ".rayignore": "weights/\n",
        "experiments/try.py": "def cells(scale): ...\n",
        "experiments/.gitignore": "scratch*\n",
        "experiments/scratch1.txt": "1",
        "experiments/keep.log": "kept",
        "experiments/data/table.csv": "not the data directory of the root",
        "noise.log": "noise",
        "data/large.bin": "data",
        "weights/model.safetensors": "weights",
        ".git/HEAD": "ref",
        ".venv/bin/python": "python",
        "other/pyvenv.cfg": "home = /usr",
        "other/lib/module.py": "an environment under another name",
        "runs/SFT/lr=1-00000000/model.bin": "a store that was given",
        "old/.cong/try-tiny/1/run.json": "a store that was not",
        "cong/old.py": "another cong",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "linked").symlink_to(tmp_path)
    return root


def packed(project: Path, root: Path | None = None) -> packing.Packed:
    return packing.pack(
        experiment=project / "experiments" / "try.py", profile=PROFILE, root=root, store=project / "runs"
    )


def names(package: packing.Packed) -> set[str]:
    return set(zipfile.ZipFile(io.BytesIO(package.archive)).namelist())


def test_a_project_is_the_repository_without_what_is_ignored_and_without_stores_and_environments(project):
    package = packed(project)
    own = {name for name in names(package) if not name.startswith(("cong/", packing.CARRIED))}
    assert package.root == project
    assert package.experiment == "experiments/try.py"
    assert own == {
        ".gitignore", ".rayignore", "experiments/.gitignore", "experiments/try.py", "experiments/keep.log",
        "experiments/data/table.csv",
    }  # fmt: skip


def test_this_very_cong_and_the_profile_travel_along(project):
    package = packed(project)
    archive = zipfile.ZipFile(io.BytesIO(package.archive))
    assert archive.read("cong/submit/packing.py") == Path(packing.__file__).read_bytes()
    assert "cong/report/page.html" in names(package)
    assert "cong/old.py" not in names(package)
    assert archive.read(package.profile) == PROFILE.read_bytes()


def test_without_a_repository_the_directory_of_the_experiment_is_the_project(project):
    (project / ".git" / "HEAD").unlink()
    (project / ".git").rmdir()
    package = packed(project)
    assert package.root == project / "experiments"
    assert package.experiment == "try.py"


def test_equal_projects_are_equal_packages(project):
    first = packed(project)
    (project / "experiments" / "try.py").touch()
    assert packed(project).archive == first.archive
    (project / "experiments" / "try.py").write_text("def cells(scale): return []\n")
    assert packed(project).archive != first.archive


def test_too_large_a_project_is_refused_with_its_largest_files(project):
    for name, size in (("big.bin", 70), ("bigger.bin", 80), ("ignored.log", 300)):
        with (project / name).open("wb") as file:
            file.truncate(size << 20)
    listed = r"more than the 100 MiB .* bigger.bin \(80 MiB\), big.bin \(70 MiB\): name"
    with pytest.raises(UserError, match=rf"holds 15\d MiB, {listed}"):
        packed(project)


def test_an_experiment_outside_of_the_working_directory_is_refused(project, tmp_path):
    with pytest.raises(UserError, match="does not hold the experiment file"):
        packed(project, root=project / "data")
    with pytest.raises(UserError, match="there is no such directory"):
        packed(project, root=tmp_path / "nowhere")


def test_an_experiment_that_is_ignored_is_refused(project):
    (project / "experiments" / ".gitignore").write_text("try.py\n")
    with pytest.raises(UserError, match=r"experiments/try.py is left out of the package by a .gitignore"):
        packed(project)
