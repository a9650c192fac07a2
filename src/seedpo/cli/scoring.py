"""``seedpo score``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedpo.cli.shared import (
    Device,
    ImagesAtOnce,
    NetworkPrecision,
    Quiet,
    RewardFile,
    quieten_libraries,
    say,
    split_names,
)
from seedpo.errors import ConfigError

if TYPE_CHECKING:
    from seedpo.data.image_list import ListedImage
    from seedpo.data.tables.score_table import ScoreTable
    from seedpo.evaluation.score import ScoreSummary, Scoring


def score_command(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...", help="Image files, folders, patterns ('out/*.png'), or a folder of `seedpo sample`."
        ),
    ],
    reward: Annotated[
        str, typer.Option(metavar="A,B,...", help="Rewards, with commas between them; see `seedpo list rewards`.")
    ],
    out: Annotated[Path, typer.Option(help="Table to write: .parquet, .csv or .jsonl.")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompts: text with one on each line, or JSON, CSV, ... with file and prompt."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="One prompt for all images.")] = None,
    config: RewardFile = None,
    precision: NetworkPrecision = "no",
    batch_size: ImagesAtOnce = 32,
    device: Device = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be read, and list them.")
    ] = False,
    as_sum: Annotated[
        bool, typer.Option("--as-sum", help="Print the YAML of a weighted sum with these means and deviations.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --out, and scores that another command left unfinished.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Score image files with rewards, and write a table: file, prompt, and a column for each reward.

    Images are sorted by their paths, 2 before 10. The lines of a text file of prompts follow the same order. Models are
    loaded one after another. Higher scores are better, whatever the reward.

    Scores are kept in OUT.partial.jsonl until the table is written. Repeat the command if it was killed or a reward
    failed: it goes on.

    Examples:
        seedpo score out/images --reward scenes-scorer,scenes-truth --out scores.parquet

        seedpo score photos/ --prompts prompts.txt --reward pickscore,hpsv2.1,aesthetic --out scores.csv

        seedpo score 'a/*.png' b/1.png --prompt "a red fox" --reward clipscore,my_code:sharpness --out scores.jsonl
    """
    quieten_libraries("transformers")
    from seedpo.data.tables.score_table import check_out, write_table
    from seedpo.evaluation.score import as_sum as sum_text
    from seedpo.evaluation.score import kept_scores, listed_images, score_images, summarise_scores

    names = split_names(reward)
    if not names:
        raise ConfigError("--reward names no reward; `seedpo list rewards` shows them")
    check_out(out, overwrite=overwrite)
    scoring = read_scoring(config, precision=precision, batch_size=batch_size, device=device, quiet=quiet)
    listed = listed_images(images, prompts=prompts, prompt=prompt)
    try:
        kept = kept_scores(out, listed, scoring, overwrite=overwrite)
        table = score_images(listed, names, scoring, skip_unreadable=skip_unreadable, kept=kept)
        write_table(table, out)
        kept.remove()
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error}") from error
    summaries = summarise_scores(table)
    say(summary_text(table, summaries))
    say(f"table: {out}")
    if as_sum:
        say(sum_text(summaries, scoring.definitions))


def read_scoring(config: Path | None, *, precision: str, batch_size: int, device: str | None, quiet: bool) -> Scoring:
    """How rewards score, from the options of a command.

    Raises:
        ConfigError: if an option has no such value, or the file of definitions cannot be used.
    """
    from seedpo.evaluation.score import Scoring, read_definitions
    from seedpo.settings import as_precision

    return Scoring(
        definitions=read_definitions(config),
        precision=as_precision(precision),
        batch_size=batch_size,
        device=checked_device(device),
        progress=not quiet,
    )


def checked_device(name: str | None) -> str | None:
    """The name of a device, once it is known to work.

    Raises:
        ConfigError: if there is no such device here.
    """
    if name is None:
        return None
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name} cannot be used here ({reason}); write cpu, or leave it out") from error
    return name


def summary_text(table: ScoreTable[ListedImage], summaries: Sequence[ScoreSummary]) -> str:
    """Mean, deviation, best and worst file of each reward, and the files that were left out."""
    prompts = len({image.prompt for image in table.images})
    count = f"{len(table.images)} {'image' if len(table.images) == 1 else 'images'}"
    lines = [f"{count} of {prompts} {'prompt' if prompts == 1 else 'prompts'}"]
    for summary in summaries:
        between = "" if summary.interval is None else " (95 % interval {:.4g} to {:.4g})".format(*summary.interval)
        spread = "" if summary.std is None else f", standard deviation {summary.std:.4g}"
        lines.append(f"{summary.name}: mean {summary.mean:.4g}{between}{spread}")
        lines += [
            f"  {what}  {score:.4g}  {path}"
            for what, (path, score) in (("best ", summary.best), ("worst", summary.worst))
        ]
    if table.skipped:
        lines.append(f"left out, since they cannot be read: {len(table.skipped)}")
        lines += [f"  {why}" for why in table.skipped.values()]
    return "\n".join(lines)
