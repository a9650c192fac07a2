"""Where models come from: a folder in diffusers' format, a single-file checkpoint, or the hub. safetensors only."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from diffusers import AutoModel, DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import SafetensorError, safe_open
from torch import nn

from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import ConfigError, DataError
from seedpo.files import read_head, require_regular
from seedpo.models.adapter import WEIGHTS_FILE, load_network, require_same_tensors
from seedpo.models.catalogue import MODELS
from seedpo.models.families import Family, family_of, tokenizer_of, widened
from seedpo.models.foreign_lora import add_layers, foreign_layers, strange_layers, tensors_of
from seedpo.models.lora import NAME, carriers
from seedpo.models.lora_file import LORA_FILE, PART, PEFT_CONFIG, lora_in, read_layers
from seedpo.models.lora_tensors import fill_layers, layers_of
from seedpo.models.names import hub_place, is_hub_name, looks_like_a_model, pipeline_class_name
from seedpo.models.pipeline_classes import FAMILIES
from seedpo.models.precision import autocast_dtype
from seedpo.models.quantised import quantise
from seedpo.models.settings import ModelSettings
from seedpo.weights import DTYPES, align, read_weights

INDEX = "model_index.json"

_VAE_FILES = [f"{folder}{name}" for folder in ("", "vae/") for name in ("config.json", WEIGHTS_FILE)]

_OTHER_WEIGHTS = (".bin", ".ckpt", ".h5", ".msgpack", ".onnx", ".pt", ".pth")
"""Endings of weights in formats that are not read."""

_CONVERT = (
    "only .safetensors are read, since other formats can run code when they are opened; if you trust the files, write "
    "them anew: from_pretrained(FOLDER, use_safetensors=False) of diffusers, then save_pretrained(NEW_FOLDER)"
)

_CONVERT_LORA = (
    "only .safetensors are read, since other formats can run code when they are opened; if you trust the file, load it "
    "with diffusers' load_lora_weights and write it with save_lora_weights"
)

_UNLOADED: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False}


def load_base(settings: ModelSettings) -> Any:
    """Loads the pipeline that settings name, by its registered name or from its place.

    Raises:
        ConfigError: if the name is unknown, or what quantises the network is not installed.
        DataError: if it cannot be loaded.
    """
    name = settings.model
    place = name if looks_like_a_model(name) and name not in MODELS else MODELS.load(name)()
    pipeline = load_pipeline(
        place,
        vae=settings.vae,
        single_file_config=settings.single_file_config,
        half=autocast_dtype(settings.mixed_precision),
        wide_network=settings.adapter == "full",
    )
    network = getattr(pipeline, family_of(pipeline).network)
    quantise(network, settings.base_precision, DTYPES[settings.mixed_precision])
    return pipeline


def load_pipeline(
    model: str | Path,
    *,
    vae: str | None = None,
    single_file_config: str | None = None,
    half: torch.dtype | None = None,
    wide_network: bool = False,
) -> Any:
    """Loads a pipeline of one of the known classes (:data:`FAMILIES`), without safety checker.

    Args:
        model: a folder in diffusers' format, a single-file ``.safetensors`` checkpoint, or ``owner/name[@revision]`` on
            the hub; only what its cache lacks is fetched.
        vae: another autoencoder: a folder, or ``owner/name[@revision]``; ``None`` for the model's own.
        single_file_config: folder (or hub id) of a diffusers pipeline with the architecture, tokenizers and noise
            schedule of a single-file checkpoint; ``None`` for diffusers' choice, fetched from the hub.
        half: number format in which the pipeline will compute. Of a folder, text encoders that cannot be trained are
            read in it, and so that no wide copy of them is made, the network and the other text encoders in the half
            precision that they are stored in, if they are. ``None``: everything is read in float32.
        wide_network: whether the network is read in float32 all the same, to train all of its weights.

    Raises:
        DataError: if there is no such model, its class has no family, or a file is missing or cannot be read.
    """
    parts: dict[str, Any] = {} if vae is None else {"vae": load_vae(vae)}
    path = Path(model)
    if path.is_file():
        pipeline = _from_single_file(path, single_file_config, parts)
    else:
        folder = _download(str(model), parts) if is_hub_name(str(model)) else path
        pipeline = _from_folder(folder, parts, half=half, wide_network=wide_network)
    _require_parts(model, pipeline)
    pipeline.register_to_config(_name_or_path=str(model))
    family = family_of(pipeline)
    if not isinstance(pipeline.vae, family.autoencoder):
        raise DataError(
            f"model {model}: its autoencoder is a {type(pipeline.vae).__name__} ({vae or 'of the model'}), but a "
            f"{type(pipeline).__name__} takes an {family.autoencoder.__name__}; set vae to one"
        )
    network = getattr(pipeline, family.network)
    if (problem := family.misfit(network, pipeline.vae)) is not None:
        raise DataError(
            f"model {model}: {problem} (autoencoder {vae or 'of the model'}); set vae to one made for this model"
        )
    for part in (network, pipeline.vae):
        for value in part.parameters():
            if value.ndim == 4:  # those of three-dimensional convolutions know no such layout
                value.data = value.data.contiguous(memory_format=torch.channels_last)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            align(part)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def add_lora(pipeline: Any, file: Path) -> None:
    """Adds a LoRA in a format of any trainer; it draws, and is not trained.

    Raises:
        DataError: if the file cannot be read, or was made for another model.
    """
    family, cls, fix = family_of(pipeline), type(pipeline).__name__, "name the model that it was trained on"
    with _explained(f"{file} cannot be added to the model", fix):
        layers = foreign_layers(file, pipeline, family)
        if layers is not None:
            add_layers(pipeline, layers)
        else:
            if strangers := strange_layers(file, pipeline, family):
                raise DataError(f"{file} cannot be added to the model: {strangers[0]!r} is no layer of a {cls}; {fix}")
            with warnings.catch_warnings():
                # peft says at length what another model's file makes of names before it refuses the shapes.
                warnings.simplefilter("ignore", RuntimeWarning)
                pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name=NAME)
    parts = carriers(pipeline, family)
    if not parts:
        raise DataError(f"{file} holds no LoRA of a {cls}; {fix}")
    for network in parts.values():
        for name, parameter in network.named_parameters():
            if PART in name:  # memory of its own: a file of kohya's gives queries, keys and values one factor
                parameter.data = widened(parameter.data).clone()
        align(network)
    # peft has rounded the tensors to the format of the layers below. Networks that are only planned have none.
    own = read_layers(read_weights(file)) if layers is None else tensors_of(layers)
    is_planned = any(parameter.is_meta for network in parts.values() for parameter in network.parameters())
    if not is_planned and (layers is not None or own.keys() == layers_of(parts, family).keys()):
        fill_layers(parts, family, own)


def add_initial(pipeline: Any, settings: ModelSettings) -> None:
    """Adds the LoRA that a run continues, if it names one.

    Raises:
        ConfigError: if a key of the run says something else of it than the file.
        DataError: if it cannot be read, was made for another model, or is of a kind that cannot be trained here.
    """
    if settings.initial_lora is None:
        return
    file, family, form = lora_file(settings.initial_lora), family_of(pipeline), settings.lora
    names = tensor_names(file)
    if any("dora_scale" in name for name in names):
        raise DataError(
            f"initial_lora = {file} holds norms of a DoRA in kohya's format, which diffusers does not read; "
            "name a file in diffusers' format"
        )
    if form.text_encoder != any(name.startswith(("text_encoder", "lora_te")) for name in names):
        asked, mend = str(form.text_encoder).lower(), str(not form.text_encoder).lower()
        raise DataError(
            f"initial_lora = {file} holds {'no ' if form.text_encoder else ''}layers of the text encoders, but "
            f"lora_text_encoder = {asked}; set lora_text_encoder to {mend}"
        )
    add_lora(pipeline, file)
    if family.network not in carriers(pipeline, family):
        raise DataError(f"initial_lora = {file} holds no LoRA of the {family.network}; name one")
    config = getattr(pipeline, family.network).peft_config[NAME]
    if config.use_dora and settings.base_precision == "int8":
        raise ConfigError(f"base_precision = int8 cannot carry the DoRA of initial_lora = {file}; take nf4 or full")
    said: dict[str, tuple[Any, Any]] = {
        "lora_rank": (form.rank, config.r),
        "lora_alpha": (form.alpha, config.lora_alpha),
        "lora_targets": (form.targets, "its own layers"),
        "lora_dora": (form.dora, config.use_dora),
    }
    for key, (value, own) in said.items():
        if value not in (type(settings).model_fields[key].default, own):
            raise ConfigError(f"{key} = {value} contradicts initial_lora = {file}, which has {own}; leave {key} out")


def lora_file(place: str) -> Path:
    """The file of a LoRA: itself, the one in a folder, or the one on the hub.

    Raises:
        DataError: if there is none, or there are several.
    """
    path = Path(place)
    if path.is_file():
        if path.suffix.lower() in _OTHER_WEIGHTS:
            raise DataError(f"LoRA {path} is a {path.suffix} file; {_CONVERT_LORA}")
        return path
    if not path.is_dir():
        if not is_hub_name(place):
            raise DataError(f"LoRA {place} is neither a file, a folder nor a name like owner/name[@revision]")
        repository, revision = hub_place(place)
        with _explained(f"LoRA {place} is not there, and the hub does not give it", "name a file or a folder"):
            path = Path(snapshot_download(repository, revision=revision, allow_patterns=["*.safetensors", PEFT_CONFIG]))
    files = sorted(path.glob("*.safetensors"))
    if not files and (others := _other_weights(path)):
        raise DataError(f"LoRA {place} holds {others[0]} and no .safetensors file; {_CONVERT_LORA}")
    if (usual := lora_in(path)) is not None:
        return usual
    if len(files) != 1:
        raise DataError(f"LoRA {place} holds {len(files)} .safetensors files and no {LORA_FILE}; name one file")
    return files[0]


def add_trained(pipeline: Any, folder: Path, *, adapter: Literal["lora", "full"]) -> None:
    """Gives a pipeline the trained weights of a run, to draw with them; no copy is made and nothing can be trained.

    Args:
        pipeline: a loaded pipeline of the base model, changed in place.
        folder: what an adapter's ``save`` wrote; it says how a LoRA is built.
        adapter: what was trained.

    Raises:
        DataError: as :meth:`seedpo.models.adapter.Adapter.load`.
    """
    family = family_of(pipeline)
    if adapter == "full":
        load_network(getattr(pipeline, family.network), folder)
        return
    file = folder / LORA_FILE
    layers = read_layers(read_weights(file))
    add_lora(pipeline, file)
    require_same_tensors(file, layers, layers_of(carriers(pipeline, family), family))


def load_vae(name: str) -> Any:
    """Loads an autoencoder from a folder (its own, or that of a pipeline) or from the hub.

    Raises:
        DataError: if there is no such autoencoder, or it cannot be read.
    """
    fix = "name a folder or a hub id with an autoencoder of diffusers as .safetensors"
    with _explained(f"autoencoder {name} cannot be loaded", fix):
        folder = Path(name)
        if not folder.is_dir():
            if not is_hub_name(name):
                raise DataError(f"autoencoder {name} is neither a folder nor a name of the form owner/name[@revision]")
            repository, revision = hub_place(name)
            folder = Path(snapshot_download(repository, revision=revision, allow_patterns=_VAE_FILES))
        inside = folder / "vae"
        folder = inside if (inside / "config.json").is_file() else folder
        _require_safetensors(f"autoencoder {name}", [folder])
        require_regular(folder)
        return align(AutoModel.from_pretrained(str(folder), use_safetensors=True, local_files_only=True))


def _require_parts(model: str | Path, pipeline: Any) -> None:
    """Refuses a pipeline that was saved without a part, as diffusers allows for some."""
    _require(model, type(pipeline), lambda name: getattr(pipeline, name) is not None)


def _require(model: str | Path, cls: Any, is_there: Callable[[str], bool]) -> None:
    needed = FAMILIES.load(cls.__name__).parts
    missing = [name for name in needed if not is_there(name)]
    if missing:
        raise DataError(
            f"model {model} has no {' and no '.join(missing)}, so that it cannot be trained; "
            f"name a {cls.__name__} with all of {', '.join(needed)}"
        )


def _from_folder(folder: Path, parts: dict[str, Any], *, half: torch.dtype | None, wide_network: bool) -> Any:
    if not folder.is_dir():
        raise DataError(
            f"model {folder} does not exist; name a folder with a diffusers pipeline, a .safetensors checkpoint, "
            "`scenes`, or owner/name for one on the hub"
        )
    if not (folder / INDEX).is_file() and (part := _part_name(folder)):
        raise DataError(
            f"model folder {folder} is one part of a pipeline, a {part}; put it into its pipeline with "
            "DiffusionPipeline.from_pretrained(PIPELINE, transformer=AutoModel.from_pretrained(FOLDER)) and "
            "save_pretrained(NEW_FOLDER) of diffusers"
        )
    if not (folder / INDEX).is_file():
        raise DataError(
            f"model folder {folder} has no {INDEX}; name a diffusers pipeline, or `scenes`, "
            "or owner/name for one on the hub"
        )
    with _explained(f"model folder {folder} cannot be loaded", "copy it again"):
        require_regular(folder)
    cls = _class_of(folder / INDEX)
    # What diffusers says of a missing folder does not name it.
    _require(folder, cls, lambda name: name in parts or (folder / name).is_dir())
    family: Family = FAMILIES.load(cls.__name__)
    _require_safetensors(f"model folder {folder}", [folder / name for name in family.parts if name not in parts])
    _require_packages(folder)
    with _explained(f"model folder {folder} cannot be loaded as a {cls.__name__}", "copy it again"):
        pipeline: Any = cls.from_pretrained(
            folder,
            variant=_variant(folder / family.network),
            dtype={} if half is None else _formats(folder, family, half, wide_network=wide_network),
            use_safetensors=True,
            local_files_only=True,
            **(_UNLOADED if _takes_safety_checker(cls) else {}),
            **_absent(cls, folder),
            **parts,
        )
    return pipeline


def _formats(folder: Path, family: Family, half: torch.dtype, *, wide_network: bool) -> dict[str, torch.dtype]:
    """The number format in which each part is read; that of a part that is not named is float32."""
    under_autocast = (*family.text_layers, *(() if wide_network else (family.network,)))
    whole = {name: half for name in family.text_parts if name not in family.text_layers}
    stored = {name: dtype for name in under_autocast if (dtype := _stored_half(folder / name)) is not None}
    return whole | stored


def _stored_half(folder: Path) -> torch.dtype | None:
    """The half precision that all weights of a part are stored in; ``None`` if some are not."""
    names = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    names -= {"BOOL", "I64", "I32"}  # positions, which are no weights
    return {"F16": torch.float16, "BF16": torch.bfloat16}.get(names.pop()) if len(names) == 1 else None


def _absent(cls: Any, folder: Path) -> dict[str, None]:
    """The optional parts that a folder lacks; diffusers wants them named."""
    optional = FAMILIES.load(cls.__name__).optional_parts
    names = [name for part in optional for name in (part, tokenizer_of(part))]
    return {name: None for name in names if not (folder / name).is_dir()}


def _require_packages(folder: Path) -> None:
    """Refuses parts whose classes need a package that is not installed: the processor of FLUX.2 dev, torchvision."""
    for part, place in read_json(folder / INDEX).items():
        kind = place[1] if isinstance(place, list) and place[0] == "transformers" else None
        needed = getattr(getattr(transformers, kind, None), "_backends", ()) if isinstance(kind, str) else ()
        if absent := [name for name in needed if find_spec(name) is None]:
            raise DataError(
                f"model folder {folder}: its {part} is a {kind}, which needs {absent[0]}: pip install {absent[0]}"
            )


def _part_name(folder: Path) -> str:
    """The class of the network that a folder holds; empty if it holds none."""
    try:
        return str(read_json(folder / "config.json")["_class_name"])
    except UNREADABLE:
        return ""


def _require_safetensors(what: str, folders: Sequence[Path]) -> None:
    """Refuses weights that are there in other formats only; of weights that are missing diffusers tells."""
    for folder in folders:
        if (others := _other_weights(folder)) and not any(folder.glob("*.safetensors")):
            raise DataError(f"{what}: {folder.name}/ has its weights as {others[0]} only; {_CONVERT}")


def _other_weights(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _OTHER_WEIGHTS)


def _from_single_file(path: Path, config: str | None, parts: dict[str, Any]) -> Any:
    if path.suffix != ".safetensors":
        raise DataError(
            f"model {path} is not a .safetensors file; other formats can run code when opened: convert it first"
        )
    local = config is not None and Path(config).is_dir()
    cls = _class_of(Path(str(config)) / INDEX) if local else _class_of_checkpoint(path)
    fix = (
        f"check that {config} describes this checkpoint"
        if local
        else "if the hub cannot be reached, set single_file_config to the folder of a diffusers pipeline like it"
    )
    with _explained(f"checkpoint {path} cannot be loaded", fix):
        pipeline: Any = cls.from_single_file(
            str(path),
            config=config,
            dtype=torch.float32,
            local_files_only=local,
            **(_UNLOADED if _takes_safety_checker(cls) else {}),
            **parts,
        )
    return pipeline


def _download(model: str, parts: dict[str, Any]) -> Path:
    """The cached folder of a pipeline on the hub; only what is missing is fetched, and its class is checked first."""
    repository, revision = hub_place(model)
    with _explained(
        f"model {model} is not a local folder, and the hub does not give it",
        "check its name, your access and that it has .safetensors, or download it once and name its folder",
    ):
        _class_of(Path(hf_hub_download(repository, INDEX, revision=revision)))
        folder = DiffusionPipeline.download(
            repository, revision=revision, use_safetensors=True, safety_checker=None, **parts
        )
    return Path(folder)


def _class_of(index: Path) -> Any:
    """The class that a ``model_index.json`` names."""
    name = pipeline_class_name(index)
    if name not in FAMILIES:
        raise DataError(
            f"{index.parent} holds a {name}, which cannot be used here{_kin(name)}; there are: "
            f"{', '.join(FAMILIES.names())}. What is missing is a module that says how it embeds prompts, packs "
            "latents and predicts; name a model of one of these classes"
        )
    return FAMILIES.load(name).pipeline


def _kin(name: str) -> str:
    """What a pipeline class that is not known has to do with one that is."""
    plain = re.sub("Img2Img|Inpaint(ing)?|ControlNet|Control|PAG", "", name)
    if plain != name and plain in FAMILIES:
        return (
            f": it takes more than a prompt; if its weights are those of a {plain}, write them anew with "
            f"{plain}.from_pipe(PIPELINE).save_pretrained(NEW_FOLDER)"
        )
    if re.search("Edit|Kontext|Fill|Redux|Layered", name):
        return ": it was trained to draw from an image beside the prompt"
    return ": no family of models says how it reads prompts and predicts (docs/models.md tells how to add one)"


def tensor_names(path: Path) -> set[str]:
    """The names of a checkpoint's tensors, without loading them.

    Raises:
        DataError: if it is not a safetensors file.
    """
    try:
        read_head(path, 1)  # a pipe would be waited for
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (SafetensorError, OSError) as error:
        raise DataError(f"checkpoint {path} cannot be read as safetensors ({error}); copy it again") from error


def _class_of_checkpoint(path: Path) -> Any:
    keys = tensor_names(path)
    for name in FAMILIES.names():
        family: Family = FAMILIES.load(name)
        if not keys.isdisjoint(family.single_file_keys):
            return family.pipeline
    raise DataError(
        f"checkpoint {path} is not a whole Stable Diffusion 1, 2 or XL model (it lacks their text encoders); name a "
        "full checkpoint, or set single_file_config to the folder of a diffusers pipeline like it; of a flow-matching "
        "model (SD3, FLUX, Z-Image, ...) name the pipeline's folder, or its name on the hub"
    )


def _takes_safety_checker(cls: Any) -> bool:
    return "safety_checker" in cls._optional_components


def _variant(folder: Path) -> str | None:
    """``fp16`` if a network's folder has the weights in that variant only."""
    names = [path.name for path in folder.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


_FAILURES = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    TypeError,
    AttributeError,
    AssertionError,  # of sizes that diffusers takes for granted in another trainer's file
    SafetensorError,
)
"""What loaders raise for missing, cut or foreign files."""


@contextmanager
def _explained(what: str, fix: str) -> Iterator[None]:
    """Turns failures of loaders into one line."""
    try:
        yield
    except DataError:
        raise
    except SingleFileComponentError as error:  # its further lines are code to write
        raise DataError(f"{what}: {str(error).splitlines()[0]}; {fix}") from error
    except _FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{what}: {reason}; {fix}") from error
