"""Where models come from: folders, single files, the hub's cache; and what is said when there is none. No network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from seedpo.errors import DataError
from seedpo.models.loading import load_pipeline, load_vae, lora_file
from seedpo.models.names import looks_like_a_model
from seedpo.models.policy import PipelinePolicy
from tests.models.published import KINDS, pipeline_of
from tests.models.single_file import save_single_file
from tests.models.tiny import network_inputs


@torch.no_grad()
def answers(pipeline: Any) -> list[torch.Tensor]:
    """What every part says to the same questions."""
    policy = PipelinePolicy(pipeline)
    latents, timestep, conditioning = network_inputs(policy)
    images = policy.decode(latents)
    embeds = [value for value in vars(conditioning).values() if value is not None]
    levels = policy.process.alphas_cumprod
    return [policy.predict(latents, timestep, conditioning), images, policy.encode_images(images), levels, *embeds]


def same_model(pipeline: Any, kind: str) -> None:
    expected = answers(pipeline_of(kind))
    assert len({tuple(part.shape) for part in expected}) > 2
    for one, other in zip(answers(pipeline), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert pipeline.scheduler.config.prediction_type == ("v_prediction" if kind == "sd21" else "epsilon")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        pipeline_of(kind).save_pretrained(base / kind)
    return {kind: base / kind for kind in KINDS}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


class TestFolders:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_class_is_read(self, folders: dict[str, Path], kind: str) -> None:
        pipeline = load_pipeline(str(folders[kind]))
        assert type(pipeline) is type(pipeline_of(kind))
        assert {parameter.dtype for parameter in pipeline.unet.parameters()} == {torch.float32}
        same_model(pipeline, kind)

    def test_half_precision_files_are_widened(self, tmp_path: Path) -> None:
        pipeline_of("sdxl").to(dtype=torch.float16).save_pretrained(tmp_path, variant="fp16")
        pipeline = load_pipeline(tmp_path)
        for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
            assert {parameter.dtype for parameter in getattr(pipeline, part).parameters()} == {torch.float32}

    def test_other_classes_are_refused_by_name(self, folders: dict[str, Path], tmp_path: Path) -> None:
        index = json.loads((folders["sd15"] / "model_index.json").read_text())
        said = {
            "PixArtSigmaPipeline": r"no family of models.*StableDiffusion3Pipeline",
            "StableDiffusion3Img2ImgPipeline": r"StableDiffusion3Pipeline\.from_pipe",
            "StableDiffusionXLInpaintPipeline": r"StableDiffusionXLPipeline\.from_pipe",
            "FluxKontextPipeline": "image beside the prompt",
            "QwenImageEditPipeline": "image beside the prompt",
            "MyPipeline": "MyPipeline",
        }
        for name, words in said.items():
            written = ["custom", name] if name == "MyPipeline" else name
            (tmp_path / "model_index.json").write_text(json.dumps(index | {"_class_name": written}))
            with pytest.raises(DataError, match=words):
                load_pipeline(tmp_path)
        (tmp_path / "model_index.json").write_text("{}")
        with pytest.raises(DataError, match=r"model_index\.json does not name a pipeline class"):
            load_pipeline(tmp_path)

    def test_one_part_of_a_pipeline(self, folders: dict[str, Path]) -> None:
        """What some trainers export: a network alone."""
        with pytest.raises(DataError, match=r"one part of a pipeline, a UNet2DConditionModel.*AutoModel"):
            load_pipeline(folders["sd15"] / "unet")

    @pytest.mark.parametrize("part", ["text_encoder_2", "tokenizer"])
    def test_an_xl_pipeline_without_a_text_part(self, folders: dict[str, Path], tmp_path: Path, part: str) -> None:
        index = json.loads((folders["sdxl"] / "model_index.json").read_text())
        shutil.copytree(folders["sdxl"], tmp_path / "model", ignore=shutil.ignore_patterns(part))
        (tmp_path / "model" / "model_index.json").write_text(json.dumps(index | {part: [None, None]}))
        with pytest.raises(
            DataError, match=rf"model has no {part}, so .* name a StableDiffusionXLPipeline with all of"
        ):
            load_pipeline(tmp_path / "model")

    def test_a_part_that_is_named_but_not_there(self, folders: dict[str, Path], tmp_path: Path) -> None:
        for part in ("unet", "vae", "text_encoder", "scheduler"):
            shutil.copytree(folders["sd15"], tmp_path / part / "model", ignore=shutil.ignore_patterns(part))
            with pytest.raises(DataError, match=rf"model has no {part}, .* StableDiffusionPipeline"):
                load_pipeline(tmp_path / part / "model")

    def test_the_autoencoder_may_come_from_elsewhere(self, folders: dict[str, Path], tmp_path: Path) -> None:
        shutil.copytree(folders["sd15"], tmp_path / "model", ignore=shutil.ignore_patterns("vae"))
        same_model(load_pipeline(tmp_path / "model", vae=str(folders["sd15"])), "sd15")

    def test_a_path_that_is_not_there(self) -> None:
        for name in ("absent", "absent.safetensors", "models/absent.ckpt", "/absent/model"):
            with pytest.raises(DataError, match=rf"model {name} does not exist"):
                load_pipeline(name)

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
    def test_weights_that_could_run_code_are_not_read(
        self, folders: dict[str, Path], tmp_path: Path, part: str
    ) -> None:
        shutil.copytree(folders["sd15"], tmp_path / "model")
        weights = next((tmp_path / "model" / part).glob("*.safetensors"))
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(DataError, match=rf"{part}/ has its weights as {weights.stem}\.bin only; .*save_pretrained"):
            load_pipeline(tmp_path / "model")
        if part == "vae":
            for place in ("model", "model/vae"):
                with pytest.raises(DataError, match=r"vae/ has its weights as .*\.bin only"):
                    load_vae(str(tmp_path / place))
            load_pipeline(tmp_path / "model", vae=str(folders["sd15"]))

    def test_a_lora_that_could_run_code_is_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "pytorch_lora_weights.bin").write_bytes(b"anything")
        for place in (tmp_path, tmp_path / "pytorch_lora_weights.bin"):
            with pytest.raises(DataError, match=r"\.bin.*only \.safetensors are read, .*save_lora_weights"):
                lora_file(str(place))

    def test_weights_that_are_missing_are_another_fault(self, folders: dict[str, Path], tmp_path: Path) -> None:
        shutil.copytree(folders["sd15"], tmp_path / "model")
        next((tmp_path / "model" / "unet").glob("*.safetensors")).unlink()
        with pytest.raises(DataError, match=r"cannot be loaded as a StableDiffusionPipeline: .*copy it again"):
            load_pipeline(tmp_path / "model")

    def test_a_cut_file_is_an_error_in_words(self, folders: dict[str, Path], tmp_path: Path) -> None:
        shutil.copytree(folders["sd15"], tmp_path / "model")
        cut(tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors")
        with pytest.raises(DataError, match="cannot be loaded as a StableDiffusionPipeline") as failure:
            load_pipeline(tmp_path / "model")
        assert "\n" not in str(failure.value)


class TestAutoencoders:
    @pytest.mark.parametrize("inside", ["", "vae"])
    def test_another_one_is_taken(self, folders: dict[str, Path], tmp_path: Path, inside: str) -> None:
        vae = pipeline_of("sdxl").vae
        vae.register_to_config(force_upcast=False)
        vae.save_pretrained(tmp_path / inside)
        pipeline = load_pipeline(folders["sdxl"], vae=str(tmp_path))
        assert pipeline.vae.config.force_upcast is False
        assert load_pipeline(folders["sdxl"]).vae.config.force_upcast is True

    def test_one_with_other_latents_is_refused(self, folders: dict[str, Path], tmp_path: Path) -> None:
        vae = type(pipeline_of("sd15").vae)(latent_channels=8, block_out_channels=(4,), norm_num_groups=2)
        vae.save_pretrained(tmp_path)
        with pytest.raises(DataError, match=r"4 latent channels, .* has 8 .*set vae"):
            load_pipeline(folders["sd15"], vae=str(tmp_path))

    def test_one_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is neither a folder nor a name of the form owner/name"):
            load_vae(str(tmp_path / "absent"))
        with pytest.raises(DataError, match="autoencoder owner/absent cannot be loaded: "):
            load_vae("owner/absent")
        with pytest.raises(DataError, match=r"autoencoder .* cannot be loaded: "):
            load_vae(str(tmp_path))


class TestSingleFiles:
    @pytest.mark.parametrize("kind", KINDS)
    def test_is_the_pipeline_that_it_was_made_of(self, folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
        """Offline, with the configurations of a folder; the folder's weights are not read."""
        file, config = tmp_path / "model.safetensors", tmp_path / "config"
        save_single_file(pipeline_of(kind), file)
        shutil.copytree(folders[kind], config, ignore=shutil.ignore_patterns("*.safetensors"))
        pipeline = load_pipeline(file, single_file_config=str(config))
        assert {parameter.dtype for parameter in pipeline.unet.parameters()} == {torch.float32}
        same_model(pipeline, kind)

    @pytest.mark.parametrize("kind", ["sd15", "sdxl"])
    def test_without_network_the_mend_is_named(self, tmp_path: Path, kind: str) -> None:
        file = tmp_path / "model.safetensors"
        save_single_file(pipeline_of(kind), file)
        with pytest.raises(DataError, match=r"model\.safetensors cannot be loaded: .*set single_file_config to the"):
            load_pipeline(file)

    def test_a_checkpoint_without_a_part(self, folders: dict[str, Path], tmp_path: Path) -> None:
        save_single_file(pipeline_of("sdxl"), tmp_path / "model.safetensors")
        weights = load_file(tmp_path / "model.safetensors")
        for prefix in ("conditioner.embedders.1.", "first_stage_model.", "model.diffusion_model."):
            kept = {name: value for name, value in weights.items() if not name.startswith(prefix)}
            save_file(kept, tmp_path / "part.safetensors")
            with pytest.raises(DataError, match=r"part\.safetensors cannot be loaded: .*; check that .* desc") as told:
                load_pipeline(tmp_path / "part.safetensors", single_file_config=str(folders["sdxl"]))
            assert "\n" not in str(told.value)

    def test_what_is_no_checkpoint(self, tmp_path: Path) -> None:
        (tmp_path / "model.ckpt").write_bytes(b"anything")
        with pytest.raises(DataError, match=r"model\.ckpt .*\.safetensors"):
            load_pipeline(tmp_path / "model.ckpt")
        (tmp_path / "cut.safetensors").write_bytes(b"anything")
        with pytest.raises(DataError, match=r"cut\.safetensors cannot be read as safetensors"):
            load_pipeline(tmp_path / "cut.safetensors")
        save_file({"lora_unet_x.alpha": torch.ones(1)}, tmp_path / "lora.safetensors")
        with pytest.raises(DataError, match=r"lora\.safetensors .*single_file_config"):
            load_pipeline(tmp_path / "lora.safetensors")


class TestHub:
    @pytest.fixture
    def cached(self, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The hub's cache as downloads leave it: two revisions of a model, the newer one under the name `main`."""
        cache = tmp_path / "cache"
        repository = cache / "models--owner--model"
        for revision, kind in (("a" * 40, "sd15"), ("b" * 40, "sdxl")):
            shutil.copytree(folders[kind], repository / "snapshots" / revision)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("b" * 40)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        return cache

    def test_a_cached_model_needs_no_network(self, cached: Path) -> None:
        same_model(load_pipeline("owner/model"), "sdxl")

    def test_a_revision_is_named_behind_an_at(self, cached: Path) -> None:
        same_model(load_pipeline(f"owner/model@{'a' * 40}"), "sd15")

    def test_its_autoencoder_alone(self, cached: Path, folders: dict[str, Path]) -> None:
        vae = load_vae("owner/model@main")
        expected = load_vae(str(folders["sdxl"])).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in vae.state_dict().items())

    def test_what_is_not_cached_is_named(self, cached: Path) -> None:
        for name in ("owner/absent", "owner/model@v2"):
            with pytest.raises(DataError, match=rf"model {name} is not a local folder"):
                load_pipeline(name)


def test_what_looks_like_a_model() -> None:
    models = ("owner/name", "stabilityai/stable-diffusion-xl-base-1.0@main", "absent.safetensors", "absent.ckpt")
    assert all(map(looks_like_a_model, (*models, ".", "a/b/c", "/absent/model")))
    assert not looks_like_a_model("scones")
