"""``seedpo data``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedpo.cli.labelling import label_command
from seedpo.cli.shared import read_changes, say
from seedpo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from seedpo.data.check.findings import Findings, Measured
    from seedpo.training.settings import RunConfig

data_app = typer.Typer(
    no_args_is_help=True,
    help="Labelled pairs of images: whether a set is sound, how one in another layout becomes the usual table, and "
    "what a reward would choose.",
)

SHEET, NEAR_SHEET, REPORT = "pairs.png", "near-duplicates.png", "check.json"
SHEET_PAIRS = 24
"""Pairs on a contact sheet at most."""


@data_app.command("check")
def check_command(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="What `data` of a run is: file, folder, glob, hub:...")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one key as in a run: pairs.resolution=512. Repeatable."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder for sheets of pairs ({SHEET}) and of near-duplicates ({NEAR_SHEET}), and for all findings "
            f"({REPORT}); of several sets a folder for each."
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Read the images of so many pairs: evenly spread, of a stream the first. Labels of all.",
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Compare prompts and images with these pairs, or a share of the prompts: `pairs.validation` of a run.",
        ),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Compare with these prompts of an evaluation: a set or a file. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Read a set of labelled pairs as a run would, and say what is in it.

    First how many files and rows were found, used and passed over, and why. Then what is measured on as well as trained
    on: prompts that are equal but for case, blanks and punctuation, and images that look alike (`--validation`,
    `--prompts`, or the keys of a run). Then sizes and shapes, what each resolution would cut away and enlarge, and
    which fits; prompts that are empty or too long; pairs that are there twice, with other labels too, near-duplicates
    among them; every pair that cannot be read, with file and row.

    Exit status 1 if a run would stop; near-duplicates do not stop it. `--out` draws pairs to look at: whether chosen is
    chosen is seen at a glance.

    Formats: tables (parquet, JSON, CSV) in the layouts of public sets or with names of your own, folders chosen/ and
    rejected/, WebDataset archives, Hugging Face data sets. docs/data.md lists them.

    Several sets are checked one after another.

    Examples:
        seedpo data check my_pairs/ --set pairs.resolution=512 --out check

        seedpo data check "pickapic/train-*.parquet" --rows 5000

        seedpo data check hub:owner/name --rows 200 --set pairs.resolution=512

        seedpo data check train/ --validation held_out/ --prompts parti --prompts my_prompts.txt
    """
    from seedpo.data.check.findings import check_pairs
    from seedpo.data.check.text import findings_text
    from seedpo.data.reading import load_pairs
    from seedpo.settings import build_config
    from seedpo.training.settings import RunConfig

    tree = read_changes([*(changes or []), *([] if validation is None else [f"pairs.validation={validation}"])])
    config = build_config(RunConfig, tree)
    measured = _measured(config, prompts or _evaluation_prompts(tree))
    if as_json:
        logging.getLogger("seedpo").setLevel(logging.WARNING)
    all_findings: list[Findings] = []
    for number, path in enumerate(paths, start=1):
        pairs = load_pairs(path, config.pairs, seed=config.seed)
        if pairs.sequential and isinstance(measured.validation, float):
            raise ConfigError(
                f"pairs.validation = {measured.validation:g}: {path} is a stream, of which no pairs can be kept out; "
                "name a set of pairs"
            )
        findings = check_pairs(pairs, rows=rows, measured=measured, progress=not quiet)
        all_findings.append(findings)
        sets = [pairs, measured.validation]
        written = [] if out is None else _write(sets, findings, out if len(paths) == 1 else out / str(number))
        if not as_json:
            say(findings_text(findings))
            if written:
                say(f"written: {', '.join(map(str, written))}")
    if as_json:
        values = [findings.as_json() for findings in all_findings]
        say(json.dumps(values[0] if len(values) == 1 else values, indent=1))
    if stops := [stop for findings in all_findings for stop in findings.stops]:
        raise DataError("; ".join(stops))


@data_app.command("convert")
def convert_command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="What `data` of a run is: file, folder, glob, hub:...")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.parquet|FILE.jsonl|FILE.csv|FOLDER",
            help="Table to write. Parquet holds the images, JSON lines and CSV their paths; a folder gets a table and "
            "the images as files.",
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of pairs as in a run. Repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a table that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Turn pairs in any layout that is read into the usual table: prompt, chosen, rejected, chosen_probability, source.

    Beside it, FILE.rows.csv says what became of each row of the source: the numbers of its pairs in the table, or why
    there is none. Ties are kept, with probability 0.5, unless pairs.ties is set. Images stay byte for byte as they are.

    If more pairs than pairs.bad_rows_limit cannot be used, only the list of rows is written, and the exit status is 1.

    Layouts: docs/data.md lists them, with a command for each.

    Examples:
        seedpo data convert HPDv2/test.json --set pairs.image_folder=HPDv2/test --out hpdv2-test.parquet

        seedpo data convert own.csv --set 'pairs.columns={prompt: text, chosen: a, rejected: b}' --out pairs.jsonl

        seedpo data convert hub:owner/name --out pairs.parquet
    """
    from seedpo.data.convert import check_out, conversion_config, convert
    from seedpo.data.reading import load_pairs
    from seedpo.settings import build_config
    from seedpo.training.settings import RunConfig

    run = build_config(RunConfig, read_changes(changes))
    if as_json:
        logging.getLogger("seedpo").setLevel(logging.WARNING)
    check_out(out, source=source, overwrite=overwrite)
    pairs = load_pairs(source, conversion_config(run.pairs), seed=run.seed)
    try:
        conversion = convert(pairs, out, source=source, overwrite=overwrite, progress=not quiet)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error}") from error
    say(json.dumps(conversion.as_json(), indent=1) if as_json else "\n".join(conversion.lines()))


data_app.command("label")(label_command)


def _evaluation_prompts(tree: Mapping[str, Any]) -> list[str]:
    """The prompts of evaluations that the user named; the default ones are in no set of anybody's."""
    name = tree.get("evaluation", {}).get("prompts")
    return [] if name is None else [str(name)]


def _measured(config: RunConfig, prompts: Sequence[str]) -> Measured:
    """What the training must not have seen: the validation pairs of a run, and some sets of prompts."""
    from seedpo.data.check.findings import Measured
    from seedpo.data.files.splits import SplitWish
    from seedpo.data.prompts.reading import load_prompts
    from seedpo.data.reading import load_pairs

    validation: Any = config.pairs.validation
    if isinstance(validation, str):
        split = config.pairs.validation_split or config.pairs.split
        wish = SplitWish(name=split, key="pairs.validation_split", held_out=True)
        validation = load_pairs(validation, config.pairs, seed=config.seed, wish=wish)
    return Measured(validation=validation, prompts={name: load_prompts(name, seed=config.seed) for name in prompts})


def _write(sets: Sequence[Any], findings: Findings, out: Path) -> list[Path]:
    """Writes all findings and, where there is something to see, sheets of pairs; returns what was written."""
    from seedpo.data.check.findings import spread
    from seedpo.data.check.sheet import near_duplicates_of, write_contact_sheet, write_near_duplicates
    from seedpo.data.pairs.sets import PairSet

    rows = spread(findings.readable, SHEET_PAIRS)
    tables = {number: pairs for number, pairs in enumerate(sets) if isinstance(pairs, PairSet)}
    near = near_duplicates_of(findings, tables, SHEET_PAIRS)
    title = f"{findings.origin}: {findings.summary}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if rows:
            write_contact_sheet(sets[0], rows, out / SHEET, title=title)
        if near:
            write_near_duplicates(tables, near, out / NEAR_SHEET, title=f"{findings.origin}: near-duplicates")
        (out / REPORT).write_text(json.dumps(findings.as_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error}") from error
    return [out / REPORT, *([out / SHEET] if rows else []), *([out / NEAR_SHEET] if near else [])]
