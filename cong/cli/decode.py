"""`cong decode`: contrastive decoding of a file of prompts."""

from pathlib import Path
from typing import Annotated

import typer

from cong.cli.options import Profile, resources_of
from cong.errors import UserError


def decode(
    post: Annotated[Path, typer.Option(help="Checkpoint after alignment, pi_r; or its LoRA adapter on --pre.")],
    prompts: Annotated[
        str, typer.Option(help=".jsonl or .parquet with prompt or messages, or a dataset OWNER/NAME@COMMIT:SPLIT.")
    ],
    output: Annotated[Path, typer.Option(help="Parquet file of responses.")],
    pre: Annotated[
        Path | None, typer.Option(help="Checkpoint before alignment, pi_ref; without it plain decoding.")
    ] = None,
    alpha: Annotated[str, typer.Option(help="Contrastive coefficient in [0, 1]; several with commas.")] = "0.5",
    pruning_threshold: Annotated[float, typer.Option(help="lambda of Eq. 8.")] = 0.1,
    repetition_penalty: float = 1.2,
    max_new_tokens: int = 2048,
    scores: Annotated[str, typer.Option(help="formula, or official for the published code's scores.")] = "formula",
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    profile: Profile = "laptop",
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16; default is the profile's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default is the profile's.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="slots, transformers, vllm or auto; default is the profile's.")
    ] = None,
    actors: Annotated[int | None, typer.Option(help="Ray Data actors; 0 decodes in this process.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows that an actor decodes at a time.")] = None,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="Decode in this process.")] = False,
) -> None:
    """Decode a file of prompts contrastively, without any experiment. Run it again to resume."""
    from cong.generation.files import FileJob, decode_file
    from cong.generation.inputs import parse_source

    settings = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "pruning_threshold": pruning_threshold,
        "scores": scores,
    }
    job = FileJob(
        post=post,
        pre=pre,
        prompts=parse_source(prompts),
        output=output,
        alphas=_alphas(alpha),
        settings=settings,
        seed=seed,
        resources=resources_of(
            profile, dtype=dtype, device=device, backend=backend, slots=batch_size, actors=0 if no_ray else actors
        ),
    )
    decoded, failed = decode_file(job)
    typer.echo(f"{output}: {decoded} rows decoded, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _alphas(text: str) -> tuple[float, ...]:
    from cong.experiment import parse

    try:
        return parse(text, tuple[float, ...])
    except ValueError as error:
        raise UserError(f"--alpha {text}: {error}") from error
