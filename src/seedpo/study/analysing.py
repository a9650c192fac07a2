"""`seedpo study analyze`: from a study's folder to the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from seedpo.errors import ConfigError
from seedpo.study.analysis import FAST_SECONDS, Analysis, analyze
from seedpo.study.analysis_page import write_analysis
from seedpo.study.folder import open_study
from seedpo.study.store import Store


def analyze_folder(
    folder: Path,
    out: Path,
    *,
    url: str | None = None,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
    least_checks: float | None = None,
    fast_seconds: float = FAST_SECONDS,
    leave_out: Sequence[str] = (),
    progress: bool = True,
) -> tuple[Analysis, Path]:
    """Analyses the votes of a study and writes analysis.html, analysis.csv and analysis.json.

    Args:
        folder: of the study.
        out: folder for the files; made if need be.
        url: database; none: what study.yaml says.
        level, seed, resamples, least_checks, fast_seconds: see :func:`seedpo.study.analysis.analyze`.
        leave_out: raters, by pseudonym, who are left out besides those that the study's owner has excluded.
        progress: whether a bar is shown.

    Returns:
        the analysis and the page.

    Raises:
        ConfigError: if a rater to be left out is not of this study, or ``out`` is a file.
        DataError: if no vote counts.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: name a folder, in which three files are written")
    study = open_study(folder)
    store = Store.open(study, url)
    try:
        judgements, raters = store.judgements(excluded=True), store.raters()
    finally:
        store.close()
    unknown = sorted(set(leave_out) - {rater.id for rater in raters})
    if unknown:
        raise ConfigError(f"study {folder} has no rater {unknown[0]!r}; `seedpo study status` names them")
    excluded = {*leave_out, *(rater.id for rater in raters if rater.excluded)}
    asked = len({one.question for one in judgements if one.expected is None})
    with tqdm(total=asked + (asked > 1), desc="questions", disable=not progress, leave=False) as bar:
        analysis = analyze(
            study,
            judgements,
            level=level,
            seed=seed,
            resamples=resamples,
            least_checks=least_checks,
            fast_seconds=fast_seconds,
            excluded=excluded,
            step=bar.update,
        )
    return analysis, write_analysis(analysis, out)
