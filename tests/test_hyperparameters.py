"""The typed settings of a scale are those of the stages that they make."""

import dataclasses
import typing

import pytest

from cong.generation import ContrastiveGenerate, Generate
from cong.graph.stage import Stage
from cong.scales import hyperparameters, scale
from cong.training import DPO, ORPO, SFT, WSPO, AuxConf, SimPO

STAGES = {
    hyperparameters.SFTSettings: SFT,
    hyperparameters.DPOSettings: DPO,
    hyperparameters.AlignmentSettings: DPO,
    hyperparameters.ORPOSettings: ORPO,
    hyperparameters.SimPOSettings: SimPO,
    hyperparameters.AuxConfSettings: AuxConf,
    hyperparameters.WSPOSettings: WSPO,
    hyperparameters.ContrastiveSettings: ContrastiveGenerate,
    hyperparameters.CandidateSettings: Generate,
}


@pytest.mark.parametrize(("settings", "stage"), STAGES.items(), ids=lambda kind: kind.__name__)
def test_every_setting_is_a_field_of_its_stage_with_the_same_type_and_default(settings: type, stage: type[Stage]):
    types, fields = typing.get_type_hints(stage), {field.name: field for field in dataclasses.fields(stage)}
    for field in dataclasses.fields(settings):
        assert typing.get_type_hints(settings)[field.name] == types[field.name]
        if field.default is not dataclasses.MISSING:
            assert field.default == fields[field.name].default


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_no_stage_is_made_of_other_settings_than_the_scale_holds(name):
    made = scale(name)
    prompts, model = made.prompts(0), made.model("qwen", made.sizes["qwen"][0], 0)
    for field in ("alignment", "weak_sft", "sft", "orpo", "simpo", "aux_conf"):
        settings = getattr(made, field)
        stage = settings.stage(model=model, data=prompts, seed=3)
        assert {key: getattr(stage, key) for key in vars(settings)} == vars(settings)
        assert (stage.model, stage.data, stage.seed) == (model, prompts, 3)


def test_greedy_contrastive_decoding_is_one_stage_for_all_seeds_and_sampling_is_not():
    made = scale("tiny")
    model = made.model("qwen", "3B", 0)
    given = {"post": model, "pre": model, "prompts": made.prompts(0), "alpha": 0.4, "max_new_tokens": 8}
    sampled = dataclasses.replace(made.contrastive, sampling=made.rejected)
    greedy = {made.contrastive.stage(**given, seed=seed).fingerprint for seed in (0, 1, 2)}
    assert len(greedy) == 1
    assert len({sampled.stage(**given, seed=seed).fingerprint for seed in (0, 1, 2)}) == 3
