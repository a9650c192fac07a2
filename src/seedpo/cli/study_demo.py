"""The demonstration of studies: one embedded model at three guidance scales, judged by people or simulated raters.

The images are drawn in seconds. Guidance is the knob because its truth is known: the oracle of the embedded world
prefers a middle one, as people do.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from seedpo.data.images.pixels import to_pil
from seedpo.errors import ConfigError
from seedpo.evaluation.drawing import draw_samples
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.models.denoiser import load_denoiser
from seedpo.models.settings import ModelSettings
from seedpo.scenes.drawing import IMAGE_SIZE
from seedpo.scenes.oracle import read_images
from seedpo.scenes.shipped import evaluation_prompts
from seedpo.scenes.taste import AVERSION, LIKING, PENALTY, TEMPERATURE
from seedpo.servers.addresses import base_address, listen
from seedpo.study.analysis.page import analyze_folder
from seedpo.study.analysis.wording import findings, headline
from seedpo.study.design import Design, new_study
from seedpo.study.folder import Study, open_study
from seedpo.study.records import Side
from seedpo.study.simulated import Judge, Task, simulate
from seedpo.study.votes.store import Store
from seedpo.study.web.serving import serve, serving_aside

GUIDANCE: Mapping[str, float] = {"guidance-1": 1.0, "guidance-3": 3.0, "guidance-8": 8.0}
"""The candidates; raters never read these names."""

TITLE = "Which drawing is better?"

CONSENT = (
    "This is a demonstration. A small model has drawn simple scenes from short descriptions, and three versions of it "
    "are compared. Your answers are stored in a file on the machine that runs it, with the time that each took, and "
    "without your name or address. You can stop at any time."
)

FEWEST_RATERS = 20
"""Raters for whom each pair has room, whoever votes."""

PROMPTS = 20
IMAGES = 4
STEPS = 10
ENLARGEMENT = 8
"""Whole factor by which images of 32 x 32 pixels are enlarged."""

BOTH_BAD = -1.0
"""Simulated raters call both bad if neither utility is above this: both have named things wrong and little to like.
A side that is better by more than a named thing (:data:`seedpo.scenes.taste.PENALTY`) is chosen all the same."""

TIES: Mapping[str, float] = {"preference": 0.25, "appeal": 0.25, "alignment": 0.75, "diversity": 0.25}
"""Differences in utility below which a simulated rater calls a tie, by question."""

QUESTIONS = ("preference", "alignment", "diversity")
PRIMARY = "preference"
CONTRASTS = (("guidance-3", "guidance-1"),)
"""What the study is made to answer, before the first vote: whether guidance helps. All else is explored."""

TASKS, CHECKS, REPEATS = 60, 12, 4
"""Shows of each rater, and how many of them are attention checks and repetitions."""

LEAST_CHECKS = 0.8
"""Raters who pass less than this share of the attention checks are left out of the analysis.

Of twelve checks that is ten. Honest raters pass one with a chance above 0.95, so less than 2% of them fail. Careless
ones leave at most two in five checks undecided, and pass one of the others with a chance of 1/3: less than 1.2% pass.
"""

SPREAD = 40.0
"""Utility of diversity for a root mean square distance of 1 between images."""


def scenes_judge(questions: Mapping[str, str], *, raters: int, seed: int) -> Judge:
    """Simulated raters who see what the oracle of the embedded world sees, with the logistic noise of its annotator.

    Of four or more raters the last one is careless and answers at random, so that the attention checks have someone to
    find.

    Args:
        questions: key of each question by its text.
        raters: number of raters.
        seed: of the noise, which depends on the seed, the rater, and what is on which side.
    """
    careless = raters - 1 if raters >= 4 else None

    def judge(task: Task, items: Sequence[Sequence[Image.Image]]) -> Side:
        question = questions[task.question]
        sides = [[_small(image) for image in images] for images in items]
        seen = hashlib.sha256(b"".join(part for side in sides for part in side)).hexdigest()
        draw = random.Random(f"{seed}:{task.rater}:{question}:{seen}")
        if task.rater == careless:
            return draw.choice(task.choices)
        utilities = [_utility(question, task.prompt, tuple(side)) for side in sides]
        if question in ("preference", "appeal"):
            utilities = [worth - AVERSION * _grain(side[0]) for worth, side in zip(utilities, items, strict=True)]
        hardly_better = abs(utilities[0] - utilities[1]) < PENALTY
        if question == "preference" and max(utilities) < BOTH_BAD and hardly_better and "bad" in task.choices:
            return "bad"
        chance = min(max(draw.random(), 1e-6), 1.0 - 1e-6)
        difference = utilities[0] - utilities[1] + TEMPERATURE * math.log(chance / (1.0 - chance))
        if abs(difference) < TIES[question] and "tie" in task.choices:
            return "tie"
        return "left" if difference > 0.0 else "right"

    return judge


def _small(image: Image.Image) -> bytes:
    """Pixels (32, 32, 3) of an enlarged image."""
    return image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX).tobytes()


def _grain(image: Image.Image) -> float:
    """Noise that is only seen at full size, as root mean square of a row; drawings that were enlarged have none."""
    row = np.asarray(image.crop((0, 0, image.width, 1)), np.float32)
    return float(row.reshape(IMAGE_SIZE, -1, 3).std(1).mean()) / 255.0


@lru_cache(maxsize=10_000)
def _utility(question: str, prompt: str, images: tuple[bytes, ...]) -> float:
    """What one side is worth for a question; for diversity, the distance of its images from the first."""
    pixels = np.frombuffer(b"".join(images), np.uint8).reshape(len(images), IMAGE_SIZE, IMAGE_SIZE, 3)
    shown = torch.from_numpy(pixels.transpose(0, 3, 1, 2) / np.float32(255.0))
    if question == "diversity":
        return SPREAD * float((shown[1:] - shown[:1]).square().mean((1, 2, 3)).sqrt().mean())
    readings = read_images(shown, [prompt] * len(images))
    wrong = PENALTY * float((~readings.correct).sum())
    looks = LIKING * float(readings.vividness.sum()) - AVERSION * float(readings.residual.sum())
    return {"preference": looks - wrong, "appeal": looks, "alignment": -wrong}[question]


def run_study_demo(
    out: Path,
    *,
    raters: int = 0,
    port: int | None = None,
    show: bool = True,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Makes the study and serves it until Ctrl-C; or lets simulated raters vote over HTTP and analyses their votes.

    Args:
        out: folder for images, study and analysis. An existing study is continued.
        raters: number of simulated raters, who all vote at the same time; 0: people vote.
        port: to listen on; `None`: 8000, or a free one if that is taken.
        show: open a browser with the study or the analysis.
        seed: of the simulated raters.
        say: called with each line to print.

    Returns:
        Path of the analysis; `None` if people vote.

    Raises:
        SeedpoError: the folder, the port or the database cannot be used.
    """
    folder = out / "study"
    if not (folder / "study.yaml").is_file():
        make_study(folder, draw_images(out / "images"), raters=raters)
    study = open_study(folder)
    if raters == 0:
        _serve_people(study, port=port, show=show, say=say)
        return None
    with serving_aside(folder, port=port or 0) as address:
        _let_vote(study, address, raters=raters, seed=seed)
    analysis, path = analyze_folder(folder, out / "analysis", least_checks=LEAST_CHECKS)
    say(headline(analysis))
    for finding in findings(analysis):
        say(f"{finding.topic.lower()}: {' '.join(finding.lines)}")
    say(f"analysis: {path.resolve()}")
    say(f"to vote yourself: seedpo study serve {folder}" + (f" --port {port}" if port else ""))
    if show:
        open_browser(path.resolve().as_uri())
    return path


def _serve_people(study: Study, *, port: int | None, show: bool, say: Callable[[str], None]) -> None:
    port = free_port(port)
    with Store.open(study) as store:
        _, token = store.add_rater("you")
    link = f"{base_address('127.0.0.1', port)}/r/{token}"
    say(f"rate:   {link}")

    def say_and_open(line: str) -> None:
        say(line)
        if show and line.startswith("stop:"):  # the last line before it answers; the port is open already
            open_browser(link)

    serve(study.folder, port=port, say=say_and_open)


def _let_vote(study: Study, address: str, *, raters: int, seed: int) -> None:
    questions = {question.text: question.key for question in study.settings.questions}
    with Store.open(study) as store:
        tokens = [token for _, token in store.add_raters([f"simulated {number}" for number in range(raters)])]
    judge = scenes_judge(questions, raters=raters, seed=seed)
    most = raters * (study.settings.tasks_per_rater or 0)
    with tqdm(total=most or None, desc="voting", unit="vote") as bar:
        simulate(address, tokens, judge, timed=False, seed=seed, on_vote=lambda vote: bar.update())
        bar.total = bar.n  # there may have been fewer pairs left


def free_port(wanted: int | None) -> int:
    """The wanted port; if it is `None`, 8000, or a free one if that is taken.

    Raises:
        ConfigError: the wanted one is taken.
    """
    for port in (8000, 0) if wanted is None else (wanted,):
        try:
            listener = listen("127.0.0.1", port)
        except ConfigError:
            if port != 8000 or wanted is not None:
                raise
        else:
            with listener:
                return int(listener.getsockname()[1])
    raise ConfigError("no port is free")


def open_browser(address: str) -> None:
    """Opens a browser if there is one, without waiting for it: some browsers run in the terminal."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def make_study(folder: Path, sources: Sequence[Path], *, raters: int = 0) -> Study:
    """A blinded study of the folders of :func:`draw_images`, pair by pair, with three questions of the paper.

    The questions are mixed, so that each rater answers all of them.

    Args:
        folder: of the study.
        sources: one for each candidate.
        raters: number of simulated raters who shall find enough pairs.
    """
    pairs = PROMPTS * len(QUESTIONS) * math.comb(len(sources), 2)
    settings = {
        "title": TITLE,
        "primary": PRIMARY,
        "contrasts": CONTRASTS,
        "raters_per_pair": max(FEWEST_RATERS, 1 + math.ceil(raters * (TASKS - CHECKS - REPEATS) / pairs)),
        "tasks_per_rater": TASKS,
        "order": "mixed",
        "enrolment": "open",
        "consent": CONSENT,
    }
    design = Design(
        kind="study", questions=QUESTIONS, checks=CHECKS / TASKS, repeats=REPEATS / TASKS, settings=settings
    )
    return new_study(folder, {source.name: source for source in sources}, design)


def draw_images(folder: Path) -> list[Path]:
    """Draws the images as `seedpo sample` would: a folder for each candidate, with the same latents in all.

    Returns:
        The folders; existing ones are kept.
    """
    prompts = evaluation_prompts()[:PROMPTS]
    folders = [folder / name for name in GUIDANCE]
    missing = [path for path in folders if not (path / "index.json").is_file()]
    if not missing:
        return folders
    denoiser = load_denoiser(ModelSettings(model="scenes"))
    for path in tqdm(missing, desc="drawing", unit="model"):
        settings = EvaluationConfig(
            images_per_prompt=IMAGES, num_inference_steps=STEPS, guidance_scale=GUIDANCE[path.name]
        )
        samples = draw_samples(denoiser, prompts, settings.drawing)
        _write(path, samples.images, prompts)
    return folders


def _write(folder: Path, images: torch.Tensor, prompts: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for row, prompt in enumerate(prompts):
        for column, image in enumerate(images[row]):
            name = f"{row:03d}-{column:02d}.png"
            to_pil(image.repeat_interleave(ENLARGEMENT, 1).repeat_interleave(ENLARGEMENT, 2)).save(folder / name)
            index.append({"file": name, "prompt": prompt})
    (folder / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
