"""A mirror holds a commit, and is no copy of another one."""

from dataclasses import dataclass

import pytest

from cong.errors import UserError
from cong.evaluation.contests import RepositoryFile
from cong.graph.stage import Stage
from cong.models import HubModel, hub_dir
from cong.models.mirror import mirror, revisions_of, undeclared
from cong.run.checks import check_stages
from cong.run.job import prepare

OLD, NEW = "a" * 40, "b" * 40
REPO = "org/name"


@dataclass(frozen=True, kw_only=True)
class Reads(Stage):
    of: HubModel | tuple[HubModel, ...]


@dataclass(frozen=True, kw_only=True)
class ReadsByRole(Stage):
    of: dict[str, HubModel]


def hub(revision):
    return HubModel(repo=REPO, revision=revision)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    monkeypatch.setenv("CONG_MIRROR", str(tmp_path))
    (tmp_path / REPO).mkdir(parents=True)
    return tmp_path / REPO


def declared_by_file(copy):
    (copy / ".revision").write_text(f"{OLD}\n")


def declared_by_download(copy):
    metadata = copy / ".cache" / "huggingface" / "download" / "onnx" / "model.safetensors.metadata"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"{OLD}\netag\n1700000000.0\n")


def declared_by_clone(copy):
    (copy / ".git" / "refs" / "heads").mkdir(parents=True)
    (copy / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (copy / ".git" / "refs" / "heads" / "main").write_text(f"{OLD}\n")


def declared_by_detached_clone(copy):
    (copy / ".git").mkdir()
    (copy / ".git" / "HEAD").write_text(f"{OLD}\n")


def declared_by_link_to_the_hubs_cache(copy):
    snapshot = copy.parent / "cache" / "snapshots" / OLD
    snapshot.mkdir(parents=True)
    copy.rmdir()
    copy.symlink_to(snapshot)


@pytest.mark.parametrize(
    "declare",
    [
        declared_by_file,
        declared_by_download,
        declared_by_clone,
        declared_by_detached_clone,
        declared_by_link_to_the_hubs_cache,
    ],
)
def test_a_copy_of_another_commit_is_refused(copy, declare):
    declare(copy)
    assert hub_dir(REPO, OLD) == copy
    assert undeclared([Reads(of=hub(OLD))]) == []
    with pytest.raises(UserError, match=f"at {OLD}, and the experiment names {NEW}: put that one into name@{NEW}"):
        hub_dir(REPO, NEW)
    with pytest.raises(UserError, match="the experiment names"):
        RepositoryFile(repo=REPO, commit=NEW, path="x").read()


def test_a_copy_of_which_files_are_of_several_commits_is_refused(copy):
    declared_by_download(copy)
    (copy / ".cache" / "huggingface" / "download" / "config.json.metadata").write_text(f"{NEW}\netag\n")
    with pytest.raises(UserError, match=f"{OLD}, {NEW}"):
        hub_dir(REPO, NEW)


def test_each_commit_has_a_copy_of_its_own(copy):
    declared_by_file(copy)
    own = copy.with_name(f"name@{NEW}")
    own.mkdir()
    assert (hub_dir(REPO, OLD), hub_dir(REPO, NEW)) == (copy, own)
    assert revisions_of(own) == {NEW}
    assert undeclared([Reads(of=(hub(OLD), hub(NEW)))]) == []


def test_a_copy_that_does_not_say_its_commit_is_named_and_stands_for_one_only(copy):
    assert mirror(REPO, OLD) == copy
    (line,) = undeclared([Reads(of=hub(OLD)), Reads(of=(hub(OLD),))])
    assert f"is taken for {OLD} (a model under an identity of its own): write the commit" in line
    with pytest.raises(UserError, match="would stand for several commits"):
        undeclared([Reads(of=hub(OLD)), Reads(of=(hub(NEW),))])


def test_a_run_says_which_copies_have_no_commit(copy, store, tmp_path, capsys):
    path = tmp_path / "reads.py"
    path.write_text(
        "from cong.experiment import Cell\nfrom cong.models import HubModel\n"
        "from dataclasses import dataclass\nfrom cong.graph.stage import Stage\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Reading(Stage):\n    model: HubModel\n"
        f"def cells(scale):\n    model = HubModel(repo={REPO!r}, revision={OLD!r})\n"
        "    return [Cell(stage=Reading(model=model), axes={})]\n"
    )
    from toy import INLINE

    job = prepare(path, scale="tiny", assignments=[], resources=INLINE, store=store)
    check_stages(job)
    assert f"note: {copy} does not say of which commit it is" in capsys.readouterr().err


def test_models_in_a_mapping_are_seen_as_those_in_a_tuple_are(copy):
    with pytest.raises(UserError, match="would stand for several commits"):
        undeclared([ReadsByRole(of={"weak": hub(OLD), "strong": hub(NEW)})])
