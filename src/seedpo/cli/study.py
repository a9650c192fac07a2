"""``seedpo study``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import Host, say
from seedpo.errors import ConfigError

study_app = typer.Typer(
    no_args_is_help=True,
    help=(
        "People in the loop: collect preferences in a browser, run a blinded study, analyse it, train on the votes.\n\n"
        "Begin with `seedpo study demo`."
    ),
)

StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database", metavar="URL", help="Database; default: that of study.yaml, else SQLite.")
]


def require_extra() -> None:
    """Says what to install if packages of the application are missing.

    Raises:
        ConfigError: a package is missing.
    """
    needed = ("sqlalchemy", "starlette", "uvicorn")
    missing = [name for name in needed if not importlib.util.find_spec(name)]
    if missing:
        raise ConfigError(f"studies need {', '.join(missing)}: pip install 'seedpo[study]'")


@study_app.command("create")
def study_create_command(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder to make.")],
    images: Annotated[
        list[str] | None,
        typer.Option("--images", metavar="[NAME=]FOLDER", help="Images of one model or run. Repeatable."),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of `seedpo evaluate`: each of its targets is a model.")
    ] = None,
    kind: Annotated[str, typer.Option(help="collect: label for training. study: compare models blindly.")] = "collect",
    form: Annotated[
        str,
        typer.Option(help="pair: which of two. single: like or dislike of one. best-worst: best and worst of several."),
    ] = "pair",
    per_view: Annotated[
        int | None, typer.Option(min=3, max=6, help="Images in one view of best-worst; default: 4.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file of prompts; records may have a category.")] = None,
    questions: Annotated[
        str | None,
        typer.Option(
            help="Any of preference, appeal, alignment, diversity (pairs); default: preference (collect), all (study)."
        ),
    ] = None,
    primary: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Question that the study is made to answer; the others are explored."),
    ] = None,
    contrasts: Annotated[
        list[str] | None,
        typer.Option(
            "--contrast", metavar="MODEL:MODEL", help="Models whose difference matters; default: all. Repeatable."
        ),
    ] = None,
    raters: Annotated[
        int | None, typer.Option(min=1, help="Raters per pair, image or view; default: 1 (collect), 3 (study).")
    ] = None,
    tasks_per_rater: Annotated[int | None, typer.Option(min=1, help="Limit of shows per rater.")] = None,
    tournament: Annotated[str, typer.Option(help="Of k images: full (every pair) or knockout (k - 1 pairs).")] = "full",
    order: Annotated[
        str, typer.Option(help="Order of questions: blocks (one after the other) or mixed (any at any pair).")
    ] = "blocks",
    checks: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.5, help="Share of attention checks; default: 0 (collect), 0.05 (study)."),
    ] = None,
    repeats: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.5, help="Share of pairs shown twice; default: 0 (collect), 0.05 (study)."),
    ] = None,
    limit_prompts: Annotated[int | None, typer.Option(min=1, help="Use only the first so many prompts.")] = None,
    title: Annotated[str | None, typer.Option(help="What raters see above the page.")] = None,
    open_enrolment: Annotated[bool, typer.Option("--open", help="Anyone who opens the page may take part.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sides, order, references and checks.")] = 0,
) -> None:
    """Make a study from existing images; then run `seedpo study serve STUDY`.

    To collect, all images of a prompt are compared with each other, from all folders: pair by pair, or --form best-
    worst of several in one view; with --form single each image is liked or disliked by itself. To compare models, each
    needs equally many images of the same prompts, from the same latents. The first one is compared, diversity needs
    four, and all images of a prompt have one size. Images are copied without metadata, under names that say nothing.
    You can edit texts and questions in STUDY/study.yaml.

    Folders come from `seedpo sample` or `seedpo evaluate`. Plain folders need --prompts and files named by the number
    of the prompt from 0 (007.png, 007-00.png, 007-01.png), or a text beside each image (cat.png, cat.txt).

    Name the question that the study is made to answer with --primary, and the models with --contrast, before the first
    vote. Their comparisons alone count in the correction of verdicts, so that other questions cost no power. The
    database remembers both: `analyze` reports later changes.

    The protocol of the SEE-DPO paper has 300 prompts, PartiPrompts : HPSv2 = 1 : 2, and four questions:

        seedpo evaluate base=MODEL runs/spo runs/see-spo --prompts study-300 --images 4 --out out/eval

        seedpo study create studies/paper --kind study --evaluation out/eval --primary preference

    Examples:
        seedpo study create studies/labels --images out/samples

        seedpo study create studies/labels --images out/samples --tournament knockout --raters 2

        seedpo study create studies/best --images out/samples --form best-worst --per-view 4

        seedpo study create studies/two --kind study --images base=out/base --images see=out/see --prompts prompts.csv
    """
    from seedpo.study.design import Design, asked_lines, contrast_of, models_of, new_study

    compared = kind == "study"
    for option, value, known in (
        ("--kind", kind, ("collect", "study")),
        ("--form", form, ("pair", "single", "best-worst")),
        ("--tournament", tournament, ("full", "knockout")),
        ("--order", order, ("blocks", "mixed")),
    ):
        if value not in known:
            raise ConfigError(f"{option} {value}: choose {' or '.join(known)}")
    models = models_of(images or [], evaluation)
    design = Design(
        kind="study" if compared else "collect",
        form=form,  # type: ignore[arg-type]  # one of the choices above
        per_view=per_view,
        questions=[key.strip() for key in questions.split(",") if key.strip()] if questions else (),
        prompts=prompts,
        limit_prompts=limit_prompts,
        checks=(0.05 if compared else 0.0) if checks is None else checks,
        repeats=(0.05 if compared else 0.0) if repeats is None else repeats,
        settings={
            "raters_per_pair": raters or (3 if compared else 1),
            "tasks_per_rater": tasks_per_rater,
            "tournament": tournament,
            "order": order,
            "enrolment": "open" if open_enrolment else None,
            "primary": primary,
            "contrasts": tuple(contrast_of(text, models) for text in contrasts or ()),
            **({} if title is None else {"title": title}),
        },
        seed=seed,
    )
    made = new_study(study, models, design)
    tasks = [group for group in made.groups if group.expected is None]
    prompt_count = len({group.prompt for group in tasks})
    unplanned = ""
    if compared and primary is None and len(made.settings.questions) > 1:
        unplanned = (
            f"no primary question: verdicts are corrected for all {len(made.settings.questions)} (--primary KEY)"
        )
    say(
        f"{len(tasks)} groups of {prompt_count} prompts, {len(made.images)} images: {study}\n"
        + "".join(f"  {line}\n" for line in asked_lines(made))
        + f"texts and questions: {study / 'study.yaml'}\n"
        + (f"{unplanned}\n" if unplanned else "")
        + f"next: seedpo study serve {study}"
    )


@study_app.command("serve")
def study_serve_command(
    study: StudyFolder,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8000,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Name under which raters reach the server. Repeatable."),
    ] = None,
    database: DatabaseUrl = None,
    admin_token: Annotated[
        str | None,
        typer.Option(envvar="SEEDPO_ADMIN_TOKEN", help="Opens the admin page; default: made once per study."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that answer requests; more than one uses more cores.")
    ] = 1,
) -> None:
    """Serve a study to raters' browsers, until Ctrl-C.

    Without --host only this machine reaches it. For other people, put a server with HTTPS in front and give the name
    under which they reach it with --name. Votes are on disk before a rater's page says so: you may stop the server at
    any time.

    One process is enough for some hundred raters at a time. Processes share the port, the database and the admin
    token; one that dies is started again.

    Examples:
        seedpo study serve studies/pilot

        seedpo study serve studies/pilot --port 9000 --name study.example.org

        seedpo study serve studies/pilot --host 0.0.0.0 --database postgresql+psycopg://seedpo@db/votes --workers 4
    """
    require_extra()
    from seedpo.study.web.security import LEAST_TOKEN
    from seedpo.study.web.serving import serve

    if admin_token is not None and len(admin_token) < LEAST_TOKEN:
        raise ConfigError(
            f"--admin-token is shorter than {LEAST_TOKEN} characters; leave it out and an unguessable one is made"
        )
    serve(
        study,
        host=host,
        port=port,
        url=database,
        admin_token=admin_token,
        names=tuple(names or ()),
        workers=workers,
        say=say,
    )


@study_app.command("links")
def study_links_command(
    study: StudyFolder,
    number: Annotated[int, typer.Option("--number", "-n", min=1, max=10_000, help="How many links.")] = 1,
    label: Annotated[str, typer.Option(help="Your own note beside them on the admin page; raters never see it.")] = "",
    days: Annotated[float | None, typer.Option(min=0.0, help="Days until they end; default: as in study.yaml.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address under which raters reach the server; default: where `serve` was reached last.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write them to, one per line; default: the screen.")] = None,
    database: DatabaseUrl = None,
) -> None:
    """Make personal links, one for each rater.

    A link is shown once: only its hash is stored. Whoever opens it continues where its rater stopped.

    Examples:
        seedpo study links studies/pilot -n 20 --base https://study.example.org --out links.txt

        seedpo study links studies/pilot --label annotators --days 14
    """
    require_extra()
    from seedpo.study.web.serving import DEFAULT_BASE, last_address, make_links, write_links

    known = base or last_address(study)
    address = known or DEFAULT_BASE
    links = make_links(study, number=number, label=label, days=days, base=address, url=database, out=out)
    if known is None:
        say(f"note: no server of this study has run yet: links begin with {address}; --base changes it", err=True)
    if out is None:
        for link in links:
            say(link)
    else:
        write_links(out, links)
        say(f"{len(links)} links: {out}")


@study_app.command("status")
def study_status_command(study: StudyFolder, database: DatabaseUrl = None) -> None:
    """Show how far a study is: answers, raters, pairs, and what it was made to answer.

    Example:
        seedpo study status studies/pilot
    """
    require_extra()
    from seedpo.study.status import status_lines

    for line in status_lines(study, url=database):
        say(line)


@study_app.command("analyze")
def study_analyze_command(
    study: StudyFolder,
    out: Annotated[Path, typer.Option(help="Folder for analysis.html, analysis.csv and analysis.json.")],
    level: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Level of intervals; tests are at 1 - level.")
    ] = 0.95,
    min_checks: Annotated[
        float | None,
        typer.Option(
            "--min-checks",
            min=0.0,
            max=1.0,
            help="Leave out raters who passed less than this share of the checks that they answered; default: nobody.",
        ),
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", metavar="RATER", help="Rater to leave out. Repeatable.")
    ] = None,
    fast_seconds: Annotated[
        float, typer.Option(min=0.0, help="Flag raters whose median time per answer is below this; 0: nobody.")
    ] = 1.0,
    resamples: Annotated[
        int, typer.Option(min=100, help="Bootstrap resamples of prompts, for intervals of agreement.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    database: DatabaseUrl = None,
) -> None:
    """Analyse the votes: win rates, tests, strengths, agreement, raters, on one page with figures.

    Ties and "both bad" count half. Intervals and tests are over raters and prompts, by one rule. With fewer than five
    raters or prompts there is no test. The p-values of what the study was made to answer (`primary` and `contrasts`, as
    they were before the first vote) are corrected together (Holm). All else is explored, with a correction of its own.

    Decide on --min-checks before you look at results. The page shows the results with and without those raters.
    Nothing is written into the study.

    Examples:
        seedpo study analyze studies/pilot --out studies/pilot/analysis

        seedpo study analyze studies/pilot --out analysis --min-checks 0.8
    """
    require_extra()
    from seedpo.study.analysis.page import analyze_folder
    from seedpo.study.analysis.vote_statistics import Resampling
    from seedpo.study.analysis.wording import change_words, headline

    analysis, page = analyze_folder(
        study,
        out,
        url=database,
        resampling=Resampling(level=level, seed=seed, resamples=resamples),
        least_checks=min_checks,
        fast_seconds=fast_seconds,
        leave_out=tuple(leave_out or ()),
    )
    say(headline(analysis))
    if analysis.changes:
        say(f"warning: {change_words(analysis.aim, analysis.changes)}")
    say(f"analysis: {page.resolve()}")


@study_app.command("plan")
def study_plan_command(
    rate: Annotated[
        float | None,
        typer.Option(min=0.501, max=0.999, help="Share of votes for the better model, ties as half; default: 0.6."),
    ] = None,
    points: Annotated[
        float | None, typer.Option(min=0.1, max=49.9, help="The same in points above 50; 10 is a rate of 0.6.")
    ] = None,
    power: Annotated[float, typer.Option(min=0.05, max=0.999, help="Probability to show the difference.")] = 0.8,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="1 - level is the chance of any false one.")] = 0.95,
    models: Annotated[int, typer.Option(min=2, max=100, help="Models; each pair is compared on each prompt.")] = 2,
    contrasts: Annotated[
        int | None,
        typer.Option(min=1, max=10000, help="Pairs of models x questions that are tested; default: all pairs."),
    ] = None,
    per_pair: Annotated[int, typer.Option(min=1, max=100000, help="Raters who compare each pair.")] = 3,
    raters: Annotated[
        list[int] | None,
        typer.Option(min=1, max=100000, help="Number of raters. Repeatable; default: a table from 5 to 50."),
    ] = None,
    ties: Annotated[float | None, typer.Option(min=0.0, max=0.95, help="Share of ties; default: 0.1.")] = None,
    rater_sd: Annotated[
        float | None, typer.Option(min=0.0, max=10.0, help="How far raters differ, in logits; default: 0.5.")
    ] = None,
    prompt_sd: Annotated[
        float | None, typer.Option(min=0.0, max=10.0, help="How far prompts differ, in logits; default: 0.7.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.0, max=3600.0, help="Per vote; default: 8, or the median of the pilot.")
    ] = None,
    pilot: Annotated[
        Path | None, typer.Option(metavar="STUDY", help="Study whose votes say how far raters and prompts differ.")
    ] = None,
    question: Annotated[
        str | None, typer.Option(metavar="KEY", help="Question of the pilot; default: its primary or first one.")
    ] = None,
    database: DatabaseUrl = None,
) -> None:
    """Say how many raters and prompts a difference needs, with votes and minutes per rater.

    Raters and prompts limit what a study can show, not votes alone: ten raters who differ stay ten raters.

    Examples:
        seedpo study plan --rate 0.6

        seedpo study plan --points 8 --models 3 --ties 0.2 --raters 12 --raters 24

        seedpo study plan --rate 0.6 --pilot studies/pilot
    """
    require_extra()
    from seedpo.study.analysis.plans import USUAL_RATERS, assumptions_of, plan_lines
    from seedpo.study.analysis.power import Goal

    if rate is not None and points is not None:
        raise ConfigError("--rate and --points say the same: give one of them")
    wanted = rate if rate is not None else 0.5 + (10.0 if points is None else points) / 100.0
    goal = Goal(rate=wanted, power=power, level=level, contrasts=contrasts or models * (models - 1) // 2)
    given = assumptions_of(
        goal,
        pilot=pilot,
        question=question,
        url=database,
        ties=ties,
        rater_sd=rater_sd,
        prompt_sd=prompt_sd,
        seconds=seconds,
    )
    for line in plan_lines(goal, given, raters=raters or USUAL_RATERS, per_pair=per_pair, models=models):
        say(line)


@study_app.command("demo")
def study_demo_command(
    out: Annotated[Path, typer.Option(help="Folder for the images, the study and the analysis.")] = Path("out/study"),
    votes: Annotated[
        int, typer.Option(min=0, max=200, metavar="RATERS", help="Let this many simulated raters vote instead of you.")
    ] = 0,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to listen on; default: 8000, or a free one.")
    ] = None,
    opened: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser.")] = True,
) -> None:
    """Try a blinded study: the embedded model at three guidance scales, drawn on the spot.

    It is served on this machine until Ctrl-C, and a browser opens with a personal link. With --votes simulated raters
    answer through the same pages, and the analysis of their votes is written, in about a minute for twelve. The study
    is made to tell whether guidance helps. Of four or more raters the last one is careless, and the attention checks
    find that one.

    Examples:
        seedpo study demo

        seedpo study demo --votes 12

        seedpo study analyze out/study/study --out out/study/analysis
    """
    require_extra()
    from seedpo.cli.shared import quieten_libraries

    quieten_libraries()
    from seedpo.cli.study_demo import run_study_demo

    run_study_demo(out, raters=votes, port=port, show=opened, say=say)


@study_app.command("export")
def study_export_command(
    study: StudyFolder,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write, outside the study's folder.")],
    format: Annotated[
        str,
        typer.Option(
            help="`parquet`: with the images inside; `jsonl`: images in a folder beside the file; "
            "`label-studio`: JSON for Label Studio, images likewise, pairs only."
        ),
    ] = "parquet",
    question: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Question whose answers are written; default: the first one on single images."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    database: DatabaseUrl = None,
) -> None:
    """Write the votes as labelled pairs or likes for training, or for Label Studio.

    There is one row per answer; ties are written as ties. Best and worst of k images are the 2 k - 3 pairs that follow;
    a like or dislike is a row with one image. Attention checks, repetitions, excluded raters, "both bad",
    "skip", and other questions are left out and counted.

    Examples:
        seedpo study export studies/pilot --out pilot.parquet

        seedpo train diffusion-dpo --set model=models/mine --set data=pilot.parquet --out runs/pilot

        seedpo study export studies/pilot --format jsonl --out pilot/pairs.jsonl

        seedpo study export studies/pilot --format label-studio --question appeal --out appeal.json
    """
    require_extra()
    from seedpo.study.export import export_votes
    from seedpo.study.folder import open_study
    from seedpo.study.votes.store import Store

    opened = open_study(study)
    with Store.open(opened, database, write=False) as store:
        answers, judgements = len(store.judgements(excluded=True)), store.judgements()
        written = export_votes(
            store.study, judgements, out, format=format, question=question, overwrite=overwrite, progress=True
        )
    left_out = dict(written.left_out)
    if answers > len(judgements):
        left_out["of excluded raters"] = answers - len(judgements)
    say(f"written: {written.path}, {written.rows} rows")
    if left_out:
        say("left out: " + ", ".join(f"{count} {reason}" for reason, count in left_out.items()))


@study_app.command("forget")
def study_forget_command(
    study: StudyFolder,
    raters: Annotated[
        list[str],
        typer.Argument(metavar="RATER...", help="Ids, as `seedpo study status` lists them, or personal links."),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    database: DatabaseUrl = None,
) -> None:
    """Delete raters at their request: links, labels, everything they saw, all answers.

    A server may run meanwhile. What was deleted is overwritten in the database's files. Backups, exports and analyses
    that you made before still hold the answers: delete those too.

    Examples:
        seedpo study forget studies/pilot r0f3a9c2b7d4e6a18

        seedpo study forget studies/pilot https://study.example.org/r/THE_RATERS_LINK
    """
    require_extra()
    from seedpo.study.votes.erasure import forget_raters

    lines = forget_raters(study, raters, url=database, agreed=lambda question: yes or typer.confirm(question))
    for line in lines or ["nothing was deleted"]:
        say(line)


@study_app.command("backup")
def study_backup_command(
    study: StudyFolder,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to make.")],
    database: DatabaseUrl = None,
) -> None:
    """Copy a study with all its votes, as they are at one moment; raters may vote meanwhile.

    The copy is a study of its own, with SQLite, whichever database the original has. It holds the server's key, so that
    personal links work there too: protect it like the study itself.

    Examples:
        seedpo study backup studies/pilot --out backups/2026-03-01

        seedpo study serve backups/2026-03-01
    """
    require_extra()
    from seedpo.study.votes.backup import back_up

    copied = back_up(study, out, url=database)
    say(f"copied: {copied.raters} raters, {copied.shows} tasks, {copied.votes} answers: {out}")


@study_app.command("restore")
def study_restore_command(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder of `seedpo study backup`, or a study.")],
    database: Annotated[
        str, typer.Option("--database", metavar="URL", help="Database to put the votes into; none of the study's yet.")
    ],
) -> None:
    """Put the votes of a backup into another database, for example from SQLite into PostgreSQL.

    A backup can also be served as it is; then nothing needs to be restored.

    Example:
        seedpo study restore backups/2026-03-01 --database postgresql://seedpo@localhost/votes
    """
    require_extra()
    from seedpo.study.votes.backup import restore

    copied = restore(backup, database)
    say(f"restored: {copied.raters} raters, {copied.shows} tasks, {copied.votes} answers")
