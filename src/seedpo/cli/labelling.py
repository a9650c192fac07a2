"""``seedpo data label``."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seedpo.cli.scoring import read_scoring
from seedpo.cli.shared import (
    Device,
    ImagesAtOnce,
    NetworkPrecision,
    Quiet,
    RewardFile,
    quieten_libraries,
    read_changes,
    say,
)
from seedpo.errors import ConfigError

if TYPE_CHECKING:
    from seedpo.evaluation.label import Candidates
    from seedpo.training.settings import RunConfig


def label_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Pairs: what `data` of a run is. Or images: a folder of `seedpo sample`, files."
        ),
    ],
    reward: Annotated[str, typer.Option(metavar="NAME", help="The judge; see `seedpo list rewards`.")],
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="Table of pairs to write.")],
    config: RewardFile = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="SOURCE is images, and these are their prompts: a line for each, or file and prompt."),
    ] = None,
    pairs: Annotated[
        Literal["best-worst", "all"] | None,
        typer.Option(help="Pairs of the images of a prompt. Images: best-worst; pairs stay as they are if not given."),
    ] = None,
    min_margin: Annotated[
        float, typer.Option(min=0.0, metavar="M", help="Scores that differ by less are a tie; equal ones always are.")
    ] = 0.0,
    ties: Annotated[
        Literal["drop", "keep"], typer.Option(help="Leave ties out, or write them with probability 0.5.")
    ] = "drop",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of pairs as in a run. Repeatable."),
    ] = None,
    precision: NetworkPrecision = "no",
    batch_size: ImagesAtOnce = 32,
    device: Device = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --out, and scores that another command left unfinished.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Let a reward choose: label pairs anew, or make pairs of several images of each prompt.

    Writes the usual table of pairs with a column `margin`, the difference of both scores. Train on it with `--set
    data=FILE.parquet`. An image is scored once, however many pairs show it. Of pairs that people judged, the last
    lines say how often the reward agrees with them, in all and by margin. With a sound reward it rises with the margin.

    Scores are kept in FILE.partial.jsonl until the table is written. Repeat the command if it was killed: it goes on,
    and writes the same table bit for bit.

    Examples:
        seedpo data label scenes-pairs --reward scenes-scorer --out labelled.parquet

        seedpo data label hpdv2.parquet --reward pickscore --min-margin 0.5 --out by-pickscore.parquet

        seedpo sample --run runs/spo --prompts parti --images 8 --out drawn
        seedpo data label drawn --reward imagereward --pairs best-worst --out pairs.parquet

        seedpo data label 'photos/*.png' --prompts prompts.csv --config mix.yaml --reward mix --pairs all --ties keep
        --out pairs.parquet

        seedpo --code . data label pairs/ --reward my_code:sharpness --out pairs.parquet
    """
    quieten_libraries("transformers")
    from seedpo.data.convert import check_out
    from seedpo.evaluation.label import Labelling, label
    from seedpo.evaluation.score import kept_scores
    from seedpo.rewards.names import check_name
    from seedpo.settings import build_config
    from seedpo.training.settings import RunConfig

    run = build_config(RunConfig, read_changes(changes))
    scoring = read_scoring(config, precision=precision, batch_size=batch_size, device=device, quiet=quiet)
    check_name(reward, scoring.definitions)
    if out.suffix.lower() != ".parquet":
        raise ConfigError(f"--out {out} must end in .parquet, a table that holds the images")
    check_out(out, source=source, overwrite=overwrite)
    if as_json:
        logging.getLogger("seedpo").setLevel(logging.WARNING)
    found = _found(source, prompts, run, progress=not quiet)
    try:
        kept = kept_scores(out, found.images, scoring, overwrite=overwrite)
        labelled = label(
            found,
            Labelling(
                reward=reward,
                rule=pairs,
                min_margin=min_margin,
                keeps_ties=ties == "keep",
                bad_rows_limit=run.pairs.bad_rows_limit,
            ),
            scoring,
            out,
            kept,
        )
        kept.remove()
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error}") from error
    if as_json:
        say(json.dumps(labelled.as_json() | {"out": str(out)}, indent=1))
        return
    say("\n".join(labelled.lines()))
    say(f"written: {out}; train on it: seedpo train diffusion-dpo --set data={out} ...")


def _found(source: str, prompts: Path | None, run: RunConfig, *, progress: bool) -> Candidates:
    """The images of a source, and its pairs if it has any."""
    from seedpo.data.convert import conversion_config
    from seedpo.data.image_list import INDEX
    from seedpo.data.pairs.sets import PairSet
    from seedpo.data.reading import load_pairs
    from seedpo.evaluation.label import judged_candidates, listed_candidates
    from seedpo.evaluation.score import listed_images
    from seedpo.files import exists

    if prompts is not None or exists(f"{source}/{INDEX}"):
        images = listed_images([source], prompts=prompts, prompt=None)
        return listed_candidates(images, origin=source, progress=progress)
    pairs = load_pairs(source, conversion_config(run.pairs), seed=run.seed)
    if not isinstance(pairs, PairSet):
        raise ConfigError(
            f"{source} is a stream, which is read once: write it as a table first, seedpo data convert {source} --out "
            "FILE.parquet, and label that"
        )
    return judged_candidates(pairs, progress=progress)
