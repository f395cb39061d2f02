"""`cong align`: the whole method in one command."""

from pathlib import Path
from typing import Annotated

import typer

from cong.cli.options import Address, Profile, StorePlace, opened, resources_of

MODEL = "MODEL"
Weak = Annotated[str, typer.Option(help="Directory, OWNER/NAME@COMMIT, or a packaged checkpoint.", metavar=MODEL)]
Strong = Annotated[str, typer.Option(help="The model to align; the weak one for self-alignment.", metavar=MODEL)]
WeakAligned = Annotated[
    str | None,
    typer.Option(help="The weak model after alignment, or its LoRA adapter; default aligns it.", metavar=MODEL),
]
Prompts = Annotated[str, typer.Option(help=".jsonl, .json or .parquet, or a dataset OWNER/NAME@COMMIT:SPLIT.")]
HeldOut = Annotated[str | None, typer.Option(help="Held-out prompts; default is a tenth of the prompts.")]
Preferences = Annotated[
    str | None, typer.Option(help="Pairs (prompt, chosen, rejected) for the weak alignment; default samples them.")
]
Reward = Annotated[
    str, typer.Option(help="FILE.py:FUNCTION, a classifier (MODEL), answers (final answer), or tests (of code).")
]
Output = Annotated[Path, typer.Option(help="Directory of the aligned model, its card and the report.")]
BaseScale = Annotated[
    str, typer.Option("--scale", help="Whose hyper-parameters are taken: tiny, small, paper, or a .py file.")
]
Hyperparameters = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One of them, such as sft.epochs=3 or max_new_tokens=128; repeatable.", metavar="SETTING=VALUE"
    ),
]


def align(
    weak: Weak,
    strong: Strong,
    prompts: Prompts,
    reward: Reward,
    output: Output,
    weak_aligned: WeakAligned = None,
    heldout: HeldOut = None,
    preferences: Preferences = None,
    alpha: Annotated[float, typer.Option(help="Contrastive coefficient in [0, 1].")] = 0.4,
    beta: Annotated[float, typer.Option(help="Of the DPO of Stage II.")] = 0.5,
    seed: int = 0,
    scale: BaseScale = "small",
    settings: Hyperparameters = None,
    lora_rank: Annotated[int | None, typer.Option(help="Train LoRA adapters of this rank, not all weights.")] = None,
    profile: Profile = "laptop",
    store: StorePlace = "runs",
    address: Address = None,
) -> None:
    """Align a strong model by a weak one: the whole method on your own models. Run it again to resume."""
    from cong.align.request import Request, with_lora, with_setting
    from cong.align.run import align as carry_out
    from cong.align.run import planned
    from cong.align.sources import model_of, preferences_of, prompts_of, reward_of
    from cong.scales import scale as scale_named

    target = output.expanduser().absolute()
    request = Request(
        weak=model_of(weak),
        strong=model_of(strong),
        aligned=model_of(weak_aligned) if weak_aligned else None,
        prompts=prompts_of(prompts),
        heldout=prompts_of(heldout) if heldout else None,
        preferences=preferences_of(preferences) if preferences else None,
        reward=reward_of(reward),
        alpha=alpha,
        beta=beta,
        seed=seed,
    )
    made = request.scale(scale_named(scale), name=target.name)
    for text in settings or []:
        made = with_setting(made, text)
    if lora_rank is not None:
        made = with_lora(made, rank=lora_rank)
    found = opened(store)
    job = planned(request, scale=made, resources=resources_of(profile, found, address=address), store=found)
    model, page = carry_out(job, target)
    typer.echo(f"report:  {page}\nmodel:   {model}")
