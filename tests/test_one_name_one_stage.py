"""Two classes of one name, and two stages of one directory, are refused instead of taken for each other."""

import json
from dataclasses import dataclass, make_dataclass

import pytest
from toy import INLINE, Number, Sum, read, run

from cong.data.prompts import PromptFile
from cong.errors import UserError
from cong.graph.plan import make_plan
from cong.graph.stage import Context, Stage
from cong.graph.store import SUCCESS
from cong.run import launch, pages
from cong.run.checks import check_stages
from cong.run.job import prepare

EXPERIMENT = """
from dataclasses import dataclass
from cong.experiment import Cell
from cong.graph.stage import Stage

@dataclass(frozen=True, kw_only=True)
class {name}(Stage):
    value: float

    def run(self, ctx):
        ctx.summary(number=self.value * {factor})

def cells(scale):
    return [Cell(stage={name}(value=2.0), axes={{}})]
"""


def value_called(name):
    made = make_dataclass(name, [("text", str)], frozen=True, kw_only=True)
    made.__module__ = "cong_experiment_mine"
    return made(text="x")


@dataclass(frozen=True, kw_only=True)
class Holder(Stage):
    held: object


def prepared(path, store):
    return prepare(path, scale="tiny", assignments=[], resources=INLINE, store=store)


def write(path, *, name="Rows", factor=1):
    path.parent.mkdir(exist_ok=True)
    path.write_text(EXPERIMENT.format(name=name, factor=factor))
    return path


def test_a_stage_that_is_called_like_one_of_ours_is_refused(store, tmp_path):
    for name in ("Evaluate", "Subset", "PreferencePairs"):
        with pytest.raises(UserError, match=f"two classes are called {name}: that of cong"):
            prepared(write(tmp_path / f"{name}.py", name=name), store)


def test_a_value_that_is_called_like_one_of_ours_is_refused(store):
    for name in ("Template", "LocalFile"):
        with pytest.raises(UserError, match=f"two classes are called {name}"):
            make_plan({"a": Holder(held=(value_called(name),))}, store)


def test_two_classes_of_one_name_in_one_graph_are_refused(store, tmp_path):
    from cong.experiment import load
    from cong.scales import scale

    stages = []
    for number, folder in enumerate(("a", "b")):
        experiment = load(write(tmp_path / folder / "exp.py", factor=number))
        stages += [cell.stage for cell in experiment.cells(scale("tiny"), {})]
    assert stages[0].fingerprint == stages[1].fingerprint
    with pytest.raises(UserError, match="two classes are called Rows"):
        make_plan({"a": Holder(held=stages[0]), "b": Holder(held=stages[1])}, store)


def test_a_file_that_is_loaded_twice_has_one_class(store, tmp_path):
    path = write(tmp_path / "exp.py")
    first, second = (prepared(path, store).cells[0].stage for _ in range(2))
    assert type(first) is not type(second)
    assert len(make_plan({"a": first, "b": Sum(parts=(second,))}, store).stages) == 2


def test_what_a_class_of_another_file_has_made_is_not_taken(store, tmp_path):
    run(store, prepared(write(tmp_path / "first.py", factor=1), store).cells[0].stage)
    other = prepared(write(tmp_path / "second.py", factor=100), store)
    for use in (launch.run, pages.report):
        with pytest.raises(UserError, match=r"made by another class Rows of first\.py: give the one of second\.py"):
            use(other)


def test_a_class_may_be_moved_or_edited(store, tmp_path):
    run(store, prepared(write(tmp_path / "first.py"), store).cells[0].stage)
    for path in (write(tmp_path / "renamed.py"), write(tmp_path / "first.py", factor=2)):
        job = prepared(path, store)
        assert job.plan.todo == ()
        check_stages(job)


def test_a_directory_that_holds_another_stage_is_refused_and_left_alone(store):
    run(store, Number(value=3))
    directory = store.directory(Number(value=3))
    manifest = json.loads((directory / SUCCESS).read_text())
    (directory / SUCCESS).write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))
    with pytest.raises(UserError, match=r"holds another stage than Number\(value=3\)"):
        run(store, Number(value=3))
    assert read(directory) == 3


def test_unfinished_work_of_another_stage_is_refused_and_left_alone(store):
    from cong.graph.execute import Assignment, execute

    directory = store.directory(Number(value=3))
    directory.mkdir(parents=True)
    (directory / ".fingerprint").write_text("0" * 64)
    (directory / "half.txt").write_text("half")
    with pytest.raises(UserError, match="holds another stage"):
        execute(Assignment(stage=Number(value=3), store=store, resources=INLINE, provenance={}))
    assert (directory / "half.txt").exists()


def test_two_stages_of_one_directory_in_one_graph_are_refused(store):
    @dataclass(frozen=True, kw_only=True)
    class Colliding(Stage):
        value: int

        @property
        def slug(self):
            return "12345678"

    with pytest.raises(UserError, match="begin with the same 8 digits"):
        make_plan({"a": Colliding(value=1), "b": Colliding(value=2)}, store)


@dataclass(frozen=True, kw_only=True)
class Captioned(Stage):
    text: str

    def label(self):
        return self.text

    def run(self, ctx: Context) -> None:
        (ctx.out / "number.txt").write_text("1")
        ctx.summary(number=1.0)


@pytest.mark.parametrize("text", ["x" * 246, "x" * 247, "x" * 5000, "ß" * 200, "日本" * 90, "🙂é" * 300])
def test_a_label_of_any_length_is_a_directory(store, text):
    stage = Captioned(text=text)
    run(store, stage)
    run(store, stage, force=("Captioned",))
    assert store.is_complete(stage)
    assert stage.slug.endswith(stage.fingerprint[:8])


def test_a_label_that_was_short_enough_names_its_directory_as_before():
    stage = Captioned(text="y" * 246)
    assert stage.slug == f"{'y' * 246}-{stage.fingerprint[:8]}"


def test_stages_of_ours_are_still_planned(store):
    from cong.data.prompts import LocalFile

    stage = PromptFile(file=LocalFile(path=__file__))
    assert make_plan({"a": stage}, store).todo == (stage,)
