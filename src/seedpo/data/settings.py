"""How labelled pairs are read, and which results are read from a cache folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from seedpo.settings import NO_EFFECT, Place, Scope, Section

SCORE_COLUMNS = ("file", "prompt")
"""Columns of a table of scores before those of the rewards, which may not have these names."""


FromScores = Literal["all", "best-worst", "margin", "likes", "likes-of-pairs"]
"""What is made of scores, ranks and likes: pairs of images, or single images that are liked or not."""

LIKES: tuple[FromScores, ...] = ("likes", "likes-of-pairs")
"""Those that make single images."""


class DataSet(Section):
    """One of several sets of pairs."""

    name: Annotated[str, Place(names="data")]
    """A registered name, a file, folder or glob of shards."""
    weight: int = Field(1, ge=1, le=1000)
    """Visits of each of its pairs in an epoch. With weights 1 and 2 a pair of the second set is trained on twice as
    often as one of the first. Whole numbers: to halve a set, double the others."""


def _set(entry: Any) -> DataSet:
    try:
        return DataSet.model_validate({"name": entry} if isinstance(entry, str) else entry)
    except ValidationError as error:
        raise ValueError(
            f"{entry!r} is not a set; write its name, or {{name: NAME, weight: W}} with a whole W from 1 to 1000"
        ) from error


def _sets(value: Any) -> Any:
    """A name stays as it is; of a list each entry becomes a set."""
    if isinstance(value, str) or not isinstance(value, list | tuple):
        if isinstance(value, str) and value:
            return value
        raise ValueError("write a name, or a list such as [a/, {name: b/, weight: 2}]")
    if not value:
        raise ValueError("the list is empty; write at least one set into it")
    sets = [_set(entry) for entry in value]
    names = [entry.name for entry in sets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is there twice; name it once and give it a weight, {{name: {twice}, weight: 2}}")
    return tuple(sets)


DataSets = Annotated[str | tuple[DataSet, ...], BeforeValidator(_sets), Place(names="data")]
"""Where labelled pairs lie: a name, or several with weights."""


def data_label(data: str | tuple[DataSet, ...]) -> str:
    """The names of the sets, for messages."""
    if isinstance(data, str):
        return data
    return ", ".join(entry.name + (f" (weight {entry.weight})" if entry.weight > 1 else "") for entry in data)


def _names(value: Any) -> Any:
    if value is None or (isinstance(value, Mapping) and all(isinstance(name, str) for name in value.values())):
        return value or None
    raise ValueError("write your own names by the usual ones, {prompt: text, chosen: win, rejected: lose}")


class PairsConfig(Section):
    """How labelled pairs of images are read (Diffusion-DPO)."""

    format: Literal["auto", "parquet", "jsonl", "csv", "json", "folders", "datasets", "d3po", "hub", "webdataset"] = (
        "auto"
    )
    """What `data` holds; `auto` tells it from the path and what lies there."""
    split: str | None = None
    """Split that is read, of a Hugging Face data set or as names of files and folders tell it (`train-00000-of-00002`,
    `pairs_test.csv`, `test/0000.parquet`). If it is not there, the run stops. None: `train`, or all where nothing tells
    a split; a set that is only for testing is refused."""
    shuffle_buffer: int = Field(1000, ge=1)
    """Pairs among which the next one of a stream (`hub:`, tar archives) is drawn, in memory as files. 1 keeps the order
    of the stream."""
    shuffle_window: int | None = Field(None, ge=1)
    """Pairs of parquet files that are shuffled together, in memory as files. Row groups are read in random order, as
    many at a time as hold so many rows, and the pairs in them are shuffled: an epoch still hands out every pair once,
    and reads each row group once. None: all pairs are shuffled together, so that almost every pair of a set that is
    larger than the memory costs the reading of a row group. No effect on sets whose images are files of their own."""
    readers: Annotated[int, NO_EFFECT, Field(ge=0, le=64)] = 0
    """Processes, for each process of the training, that decode and resize pairs ahead of it: the next batch, and two
    pairs for each reader. They change no number. 0: pairs are read when they are needed. No effect on pairs whose
    latents are in memory or in `cache.folder`."""
    image_folder: Annotated[str | None, Place()] = None
    """Folder in which paths of images in tables, JSONL and CSV begin, and within which they must lie. `null`: the
    folder of the file that names them; if the images are not there, but in a folder with the name of that file
    (HPDv2's `train.json` and `train/`) or begin in the folder that `data` names, there."""
    columns: Annotated[Mapping[str, str] | None, BeforeValidator(_names)] = None
    """Own names of columns, by the usual ones: `{prompt: text, chosen: win, rejected: lose}`, with
    `chosen_probability: p` if there is one. A value within a structure is named with a dot, `meta.text`. The usual
    names are those of any layout that is read, such as `jpg_0`, `jpg_1`, `label_0`. `null`: the usual names."""
    from_scores: FromScores = "all"
    """Pairs that are made where each image has a score, a rank or a like. `all`: every two images of a prompt, equal
    ones as ties; `margin`: every two images that are not a tie; `best-worst`: the best image of a prompt and its worst
    one. They have no effect where the data hold pairs. Single images for `kto`, which sets it: `likes`, as data of
    likes say; `likes-of-pairs`, each image of a pair, liked if it is preferred in one."""
    min_gap: float = Field(0.0, ge=0.0)
    """Scores or ranks of one prompt that differ by less than this are a tie. 0: only equal ones are. No effect where
    the data hold pairs."""
    resolution: int | None = Field(None, ge=8, multiple_of=8)
    """Height and width in pixels, a multiple of 8: the shorter side is resized to it and the rest cropped away. 512 for
    Stable Diffusion 1.5, 1024 for XL. `null`: the images' own size, which must be the same for all."""
    crop: Literal["center", "random"] = "center"
    """Part of a non-square image that is used: the middle, or a window drawn once for each pair. Both images of a pair
    are cut alike. No effect without `resolution`."""
    buckets: bool = False
    """Whether images keep about their own shape: each pair is brought to that of a list of sizes whose aspect ratio is
    nearest. Their area is about `resolution` x `resolution`, their sides are multiples of 64, and none is longer than
    twice the other. `resolution` must then be a multiple of 64. False: every image becomes a square."""
    flip: bool = False
    """Whether both images of a pair are mirrored together, at half of its visits."""
    ties: Literal["drop", "half"] = "drop"
    """Pairs in which neither image is preferred: left out, or trained on with probability 0.5 for each image."""
    gap_reward: Annotated[str | None, Place(names="rewards"), Scope(fact="objective", values=("dpo",), strict=True)] = (
        None
    )
    """Reward, named like `reward`, whose scores of both images `objective.gap_scale` compares. Each pair is scored
    once, when its images are first read; `cache.folder` keeps the gap with the latents. None: no pair is scored."""
    empty_prompts: float = Field(0.0, ge=0.0, le=1.0)
    """Prompt dropout: share of the visits at which a pair is trained on with the empty prompt. It is drawn anew at
    every visit, alike for the pair's two images; 0.2 in the official code of Diffusion-DPO. 0 keeps all prompts."""
    validation: Annotated[float | str | None, Place(names="data")] = None
    """Pairs that are kept out of the training, on which every evaluation measures accuracy, loss and margin: a share
    of the prompts (0.1; which ones, the prompts themselves decide, and all pairs of a prompt stay together), or a set
    of its own, named like `data`. None: nothing is kept out."""
    validation_split: str | None = None
    """Split of a set that `validation` names, where it has several; None: `split`, or else the one for validation or
    testing."""
    validation_limit: int | None = Field(256, ge=1)
    """Most validation pairs that are measured, the first ones of the set; None: all. It does not change which pairs are
    trained on."""
    validation_draws: int = Field(4, ge=1)
    """Time steps and noises at which each validation pair is measured, spread over the schedule and the same at every
    evaluation; more make the figures less noisy and cost as many forward passes more."""
    bad_rows_limit: float = Field(0.01, ge=0.0, le=1.0)
    """Share of the pairs that may be unreadable: the next readable pair takes the place of each. A run that meets more
    stops; with 0 it stops at the first."""

    @model_validator(mode="after")
    def _buckets_are_usable(self) -> Self:
        if self.buckets and (self.resolution is None or self.resolution % 64):
            raise ValueError(
                f"pairs.buckets needs a pairs.resolution that is a multiple of 64, and it is {self.resolution}; set it "
                "to 512 for Stable Diffusion 1.5, to 1024 for XL"
            )
        return self

    @property
    def reads_likes(self) -> bool:
        """Whether single images are read, each liked or not."""
        return self.from_scores in LIKES

    @model_validator(mode="after")
    def _likes_are_usable(self) -> Self:
        if self.reads_likes and self.ties == "half":
            raise ValueError(
                f"pairs.ties = half: with pairs.from_scores = {self.from_scores} an image is liked or it is not; leave "
                "it out"
            )
        return self

    @model_validator(mode="after")
    def _validation_is_usable(self) -> Self:
        if self.validation == "":
            raise ValueError(
                "pairs.validation is empty; write a share such as 0.1, or the name of a set of pairs, or null"
            )
        if isinstance(self.validation, float) and not 0.0 < self.validation < 1.0:
            raise ValueError(
                f"pairs.validation = {self.validation:g} must be a share above 0 and below 1, for example 0.1, or the "
                "name of a set of pairs; null keeps nothing out"
            )
        if self.validation_split is not None and not isinstance(self.validation, str):
            raise ValueError("pairs.validation_split is of a set that pairs.validation names; remove it")
        return self


class CacheConfig(Section):
    """What `seedpo cache build` computes once and runs read (Diffusion-DPO)."""

    folder: Annotated[str | None, NO_EFFECT, Place(output=True)] = None
    """Folder that `seedpo cache build` fills and that any number of runs may read at the same time. What is found there
    was made with the same weights, settings and pairs, and is verified whenever it is read; what is missing is computed
    live. `null`: everything is."""
    latents: Annotated[bool, NO_EFFECT] = True
    """Whether latents are kept in `folder`."""
    prompts: Annotated[bool, NO_EFFECT] = True
    """Whether embedded prompts are kept in `folder`."""
    reference: Annotated[bool, Scope(fact="objective", values=("dpo",), strict=True)] = False
    """Whether the reference's log-probabilities are kept in `folder`, two numbers for each visit of a pair. Time steps,
    noise and mirroring then follow from `draws_seed`, pair and visit, so that runs with other settings share them."""
    draws_seed: int = Field(0, ge=0)
    """With `reference`: seed of time steps, noise and mirroring, in place of `seed`."""
    visits: int | None = Field(None, ge=1)
    """With `reference`: number of draws of each pair; after as many visits they repeat. More visits give more different
    time steps and noises, and a longer build."""

    @model_validator(mode="after")
    def _reference_is_complete(self) -> Self:
        if self.reference and self.folder is None:
            raise ValueError("cache.reference needs a folder to keep things in; set cache.folder too")
        if self.reference and self.visits is None:
            raise ValueError("cache.reference needs a number of draws of each pair; set cache.visits, for example to 4")
        if self.visits is not None and not self.reference:
            raise ValueError("cache.visits is of the draws of cache.reference; set cache.reference too, or no visits")
        return self
