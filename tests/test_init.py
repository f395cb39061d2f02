"""`cong init`: what it writes is what is shipped, it can be planned at once, and nothing is overwritten."""

import os
import sys

import pytest
from commands import QUICKSTART

from cong.cli import app
from cong.cli.init import write_starter
from cong.cli.options import prepare
from cong.errors import UserError
from cong.graph.resources import load_profile

NAMES = ["quickstart.py", "laptop.toml", ".gitignore"]


def fingerprints(experiment, profile, store):
    job = prepare(experiment, "tiny", profile, None, None, str(store), None)
    return [cell.stage.fingerprint for cell in job.cells]


def test_the_written_experiment_is_the_one_of_the_checkout(tmp_path):
    write_starter(tmp_path)
    written = (tmp_path / "quickstart.py").read_text()
    assert written == QUICKSTART.read_text().replace("cong run experiments/", "cong run ").replace(
        "cong plan experiments/", "cong plan "
    )
    assert "cong run quickstart.py" in written


def test_its_graph_is_that_of_the_checkouts_quickstart(tmp_path, monkeypatch):
    write_starter(tmp_path)
    monkeypatch.chdir(tmp_path)
    own = fingerprints(tmp_path / "quickstart.py", "laptop.toml", tmp_path / "runs")
    assert own == fingerprints(QUICKSTART, "laptop", tmp_path / "runs")


def test_the_written_profile_is_laptop(tmp_path):
    write_starter(tmp_path)
    assert load_profile(str(tmp_path / "laptop.toml")) == load_profile("laptop")


def test_a_new_directory_is_made_and_the_next_commands_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    app.app(["init", "my demo"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [f"wrote my demo/{name}" for name in NAMES]
    assert [line.strip() for line in lines[4:]] == [
        "cd 'my demo'",
        "cong plan quickstart.py",
        "cong run quickstart.py --profile laptop.toml",
    ]
    assert "runs/" in (tmp_path / "my demo" / ".gitignore").read_text().splitlines()


def test_without_a_directory_it_writes_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    app.app(["init"], standalone_mode=False)
    assert sorted(os.listdir()) == sorted(NAMES)
    assert "cd " not in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_there_is_kept_and_nothing_is_written_beside_it(name, tmp_path, monkeypatch, capsys):
    (tmp_path / name).write_text("mine")
    monkeypatch.setattr(sys, "argv", ["cong", "init", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} already holds {name}, and nothing is overwritten: name another one\n"
    )
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_link_to_nowhere_is_kept_too(tmp_path):
    (tmp_path / "laptop.toml").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="already holds laptop"):
        write_starter(tmp_path)
    assert os.listdir(tmp_path) == ["laptop.toml"]


def test_a_file_in_place_of_the_directory_is_one_line(tmp_path):
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(UserError, match="demo is a file, not a directory"):
        write_starter(tmp_path / "demo")
