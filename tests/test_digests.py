"""A local checkpoint is identified by all that its files hold, and read once."""

import os
import shutil
import time

import pytest

from cong.models import LocalModel, digests
from cong.models.digests import directory_digest

MIB = 1 << 20


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("CONG_CACHE", str(tmp_path / "cache"))
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(bytes(5 * MIB))
    return directory


def overwrite(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"x")


def age(directory):
    """Let the files look as if they had been written long ago: what was just written is not remembered."""
    for path in directory.iterdir():
        os.utime(path, (1, 1))


@pytest.mark.parametrize("offset", [0, MIB, MIB + 1, 2 * MIB + 77, 4 * MIB - 1, 5 * MIB - 1])
@pytest.mark.parametrize("chunk", [digests.CHUNK, MIB + 12345])
def test_one_byte_anywhere_in_the_weights_is_another_checkpoint(checkpoint, monkeypatch, offset, chunk):
    monkeypatch.setattr(digests, "CHUNK", chunk)
    before = LocalModel(path=str(checkpoint)).identity()
    overwrite(checkpoint / "model.safetensors", offset)
    assert LocalModel(path=str(checkpoint)).identity() != before


def test_two_exchanged_pieces_of_a_file_are_another_checkpoint(checkpoint, monkeypatch):
    monkeypatch.setattr(digests, "CHUNK", MIB)
    path = checkpoint / "model.safetensors"
    pieces = [bytes([number]) * MIB for number in range(5)]
    path.write_bytes(b"".join(pieces))
    before = directory_digest(checkpoint)
    path.write_bytes(b"".join([pieces[0], pieces[2], pieces[1], *pieces[3:]]))
    assert directory_digest(checkpoint) != before


def test_a_second_shard_and_a_renamed_one_are_other_checkpoints(checkpoint):
    seen = {directory_digest(checkpoint)}
    shutil.copy(checkpoint / "model.safetensors", checkpoint / "other.safetensors")
    seen.add(directory_digest(checkpoint))
    (checkpoint / "model.safetensors").rename(checkpoint / "third.safetensors")
    seen.add(directory_digest(checkpoint))
    assert len(seen) == 3


def test_the_identity_does_not_depend_on_the_place_or_on_the_number_of_threads(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "CHUNK", MIB)
    here = directory_digest(checkpoint)
    shutil.copytree(checkpoint, tmp_path / "elsewhere")
    monkeypatch.setattr(digests, "_THREADS", 1)
    assert directory_digest(tmp_path / "elsewhere") == here


def test_the_identity_of_a_small_checkpoint_is_that_of_existing_stores(checkpoint):
    (checkpoint / "model.safetensors").write_bytes(b"tiny weights" * 1000)
    assert directory_digest(checkpoint) == "07b724c847548276a31834255c6c2245746a9e354d0f3a5c4731f9c0de535c54"


def test_what_was_read_once_is_not_read_again(checkpoint, monkeypatch):
    age(checkpoint)
    monkeypatch.setattr(digests, "_settled", lambda signature, *, began: True)  # The time of the inode is now.
    first = directory_digest(checkpoint)
    monkeypatch.setattr(digests, "_digests", None)
    assert directory_digest(checkpoint) == first


@pytest.mark.parametrize("rewrite", ["in place", "another file of the same times"])
def test_a_file_that_was_rewritten_with_its_old_times_is_read_again(checkpoint, monkeypatch, rewrite):
    monkeypatch.setattr(digests, "_settled", lambda signature, *, began: True)
    age(checkpoint)
    first = directory_digest(checkpoint)
    path = checkpoint / "model.safetensors"
    if rewrite != "in place":
        shutil.copy(path, checkpoint / "copy")
        (checkpoint / "copy").replace(path)
    time.sleep(0.02)  # Longer than the step of the file system's clock.
    overwrite(path, 2 * MIB)
    age(checkpoint)
    assert directory_digest(checkpoint) != first


def test_what_was_written_a_moment_ago_is_not_remembered(checkpoint, tmp_path):
    directory_digest(checkpoint)
    remembered = next((tmp_path / "cache").rglob("*.json"))
    assert "model.safetensors" not in remembered.read_text()


@pytest.mark.parametrize("content", ["", "[1, 2", "[]", '{"model.safetensors": [[0], "00"]}'])
def test_a_cache_that_cannot_be_read_costs_another_reading(checkpoint, tmp_path, content):
    first = directory_digest(checkpoint)
    next((tmp_path / "cache").rglob("*.json")).write_text(content)
    assert directory_digest(checkpoint) == first


def test_a_cache_that_cannot_be_written_costs_another_reading(checkpoint, tmp_path, monkeypatch):
    first = directory_digest(checkpoint)
    monkeypatch.setenv("CONG_CACHE", "/proc/nowhere")
    assert directory_digest(checkpoint) == first


def test_the_identity_travels_with_the_model(checkpoint):
    import pickle

    model = LocalModel(path=str(checkpoint))
    identity = model.identity()
    sent = pickle.dumps(model)
    shutil.rmtree(checkpoint)
    assert pickle.loads(sent).identity() == identity
