"""A group shares a store: what one of them writes has the permissions that the umask leaves."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from toy import Number, run

from cong.tracking import database
from cong.training.checkpoints import mark_complete


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_database_is_opened_to_the_group(tmp_path):
    path = tmp_path / database.NAME
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
        connection.execute("INSERT INTO experiments VALUES ('Default')")
    path.chmod(0o600)
    with umask(0o002):
        database.prepare(tmp_path, connect=lambda uri: None)
    assert mode(path) == 0o664


def test_files_of_their_owner_only_follow_the_umask_once_published(store, monkeypatch):
    def write(self, ctx):
        (ctx.out / "model").mkdir(mode=0o700)
        for path in (ctx.out / "number.txt", ctx.out / "model" / "model.safetensors"):
            path.write_text("1")
            path.chmod(0o600)

    monkeypatch.setattr(Number, "run", write)
    with umask(0o027):
        run(store, Number(value=1))
    directory = store.directory(Number(value=1))
    names = ("number.txt", "model/model.safetensors", "model")
    assert [mode(directory / name) for name in names] == [0o640, 0o640, 0o750]


def test_what_the_umask_closes_stays_closed(store, monkeypatch):
    def write(self, ctx):
        (ctx.out / "number.txt").write_text("1")

    monkeypatch.setattr(Number, "run", write)
    with umask(0o077):
        run(store, Number(value=1))
    assert mode(store.directory(Number(value=1)) / "number.txt") == 0o600


def test_a_checkpoint_can_be_gone_on_with_by_another_user_of_the_store(tmp_path):
    checkpoint = tmp_path / "checkpoint-1"
    (checkpoint / "state").mkdir(parents=True, mode=0o700)
    for path in (checkpoint / "model.safetensors", checkpoint / "state" / "optimizer.pt"):
        path.write_text("1")
        path.chmod(0o600)
    with umask(0o007):
        mark_complete(checkpoint, shape="plain")
    assert mode(checkpoint / "model.safetensors") == mode(checkpoint / "state" / "optimizer.pt") == 0o660
    assert mode(checkpoint / "state") & 0o070 == 0o070
