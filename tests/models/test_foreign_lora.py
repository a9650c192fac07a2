"""A LoRA in the layout of any trainer draws as the same product added to the weights by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import swap_scale_shift
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedpo.core.sampling import Sampler, Sampling
from seedpo.errors import DataError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.families import family_of
from seedpo.models.loading import add_lora
from seedpo.models.lora import adapted_layers
from seedpo.models.lora_file import PEFT_CONFIG, PEFT_WEIGHTS
from tests.models.flow_pipelines import flow_pipeline
from tests.models.tiny import PROMPTS, seeded, tiny_pipeline

RANK, ALPHA = 2, 6.0

ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.to_add_out", "proj_out")
"""What the LoRAs here adapt; ``proj_out`` stands alone and, in FLUX, in single blocks too."""

Product = tuple[Tensor, Tensor]
"""Factors of a layer: down (rank, inputs), up (outputs, rank)."""


def factors(inputs: int, outputs: int, seed: int, *, rank: int = RANK) -> Product:
    generator = seeded(seed)
    return torch.randn(rank, inputs, generator=generator) / 4, torch.randn(outputs, rank, generator=generator) / 4


def products(network: Any, endings: tuple[str, ...] = ATTENTION) -> dict[str, Product]:
    """Factors for the linear layers of a network; ranks differ."""
    chosen = [name for name, _ in network.named_modules() if name.endswith(endings)]
    return {
        name: factors((layer := network.get_submodule(name)).in_features, layer.out_features, row, rank=RANK + row % 2)
        for row, name in enumerate(chosen)
    }


@torch.no_grad()
def added(pipeline: Any, layers: Mapping[str, Product], *, alpha: float | None) -> Any:
    """The pipeline with the products in its weights."""
    for name, (down, up) in layers.items():
        scale = 1.0 if alpha is None else alpha / len(down)
        pipeline.transformer.get_submodule(name).weight += scale * up @ down
    return pipeline


@torch.no_grad()
def drawn(pipeline: Any) -> Tensor:
    """Clean latents."""
    denoiser = PipelineDenoiser(pipeline)
    start = torch.randn(len(PROMPTS), *denoiser.latent_shape, generator=seeded())
    settings = Sampling(num_inference_steps=2, guidance_scale=1.0)
    prompts = denoiser.encode_prompts(PROMPTS)
    return Sampler(denoiser, settings).sample(start, prompts, prompts)


def dotted(layers: Mapping[str, Product], lead: str, *, adapter: str = "", alpha: bool = False) -> dict[str, Tensor]:
    tensors = {f"{lead}{name}.lora_A{adapter}.weight": down for name, (down, _) in layers.items()}
    tensors |= {f"{lead}{name}.lora_B{adapter}.weight": up for name, (_, up) in layers.items()}
    return tensors | ({f"{lead}{name}.alpha": torch.tensor(ALPHA) for name in layers} if alpha else {})


def flattened(layers: Mapping[str, Product], lead: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in layers.items():
        flat = lead + name.replace(".", "_")
        tensors |= {
            f"{flat}.lora_down.weight": down,
            f"{flat}.lora_up.weight": up,
            f"{flat}.alpha": torch.tensor(ALPHA),
        }
    return tensors


LAYOUTS: dict[str, tuple[Callable[[Mapping[str, Product]], dict[str, Tensor]], float | None]] = {
    "diffusers": (lambda layers: dotted(layers, "transformer."), None),
    "diffusers with alphas": (lambda layers: dotted(layers, "transformer.", alpha=True), ALPHA),
    "bare names of an adapter": (lambda layers: dotted(layers, "", adapter=".default"), None),
    "ComfyUI": (lambda layers: dotted(layers, "diffusion_model.", alpha=True), ALPHA),
    "OneTrainer": (lambda layers: flattened(layers, "lora_transformer_"), ALPHA),
    "musubi-tuner": (lambda layers: flattened(layers, "lora_unet_"), ALPHA),
}
"""Names of tensors, and the alpha that they hold."""

KINDS = ("sd35",)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_file(tmp_path: Path, layout: str, kind: str) -> None:
    write, alpha = LAYOUTS[layout]
    pipeline = flow_pipeline(kind)
    layers = products(pipeline.transformer)
    save_file(write(layers), tmp_path / "lora.safetensors")
    add_lora(pipeline, tmp_path / "lora.safetensors")
    by_hand = drawn(added(flow_pipeline(kind), layers, alpha=alpha))
    assert (by_hand - drawn(flow_pipeline(kind))).abs().max() > 1e-2
    torch.testing.assert_close(drawn(pipeline), by_hand, atol=1e-5, rtol=1e-4)
    assert {name for name, _ in adapted_layers(pipeline.transformer)} == layers.keys()


@pytest.mark.parametrize(("kind", "adapter", "rooted"), [("sd3", "default", False), ("sd35", "learner", True)])
def test_a_folder_of_peft(tmp_path: Path, kind: str, rooted: bool, adapter: str) -> None:
    """As flow_grpo and Flow-Factory write it; an adapter of another name has a folder of its own."""
    network = flow_pipeline(kind).transformer
    layers = {name: (down[:RANK], up[:, :RANK]) for name, (down, up) in products(network, ATTENTION[:-1]).items()}
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=list(ATTENTION[:-1]), use_rslora=rooted, alpha_pattern={"to_k": 3.0}
    )
    peft = get_peft_model(network, config, adapter_name=adapter)
    for name, (down, up) in layers.items():
        layer = peft.base_model.model.get_submodule(name)
        layer.lora_A[adapter].weight.data, layer.lora_B[adapter].weight.data = down.clone(), up.clone()
    peft.save_pretrained(tmp_path)
    folder = tmp_path if adapter == "default" else tmp_path / adapter
    assert all(name.startswith("base_model.model.") for name in load_file(folder / PEFT_WEIGHTS))

    pipeline, by_hand = flow_pipeline(kind), flow_pipeline(kind)
    add_lora(pipeline, folder / PEFT_WEIGHTS)
    root = RANK**0.5 if rooted else 1.0
    for name, product in layers.items():
        added(by_hand, {name: product}, alpha=root * (3.0 if name.endswith("to_k") else ALPHA))
    torch.testing.assert_close(drawn(pipeline), drawn(by_hand), atol=1e-5, rtol=1e-4)


def original_layers(width: int, blocks: int) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of layers in Stability AI's code, of which the last text block is shorter."""
    sizes: dict[str, tuple[int, int]] = {}
    for number in range(blocks):
        last, block = number == blocks - 1, f"joint_blocks.{number}"
        sizes |= {f"{block}.{side}.attn.qkv": (width, 3 * width) for side in ("x_block", "context_block")}
        for side in ("x_block",) if last else ("x_block", "context_block"):
            sizes |= {f"{block}.{side}.attn.proj": (width, width), f"{block}.{side}.mlp.fc1": (width, 4 * width)}
            sizes |= {f"{block}.{side}.mlp.fc2": (4 * width, width)}
        sizes[f"{block}.context_block.adaLN_modulation.1"] = (width, (2 if last else 6) * width)
        sizes[f"{block}.x_block.adaLN_modulation.1"] = (width, 6 * width)
    return sizes | {"final_layer.adaLN_modulation.1": (width, 2 * width), "y_embedder.mlp.2": (width, width)}


def of_original(name: str, change: Tensor, *, last: int) -> dict[str, Tensor]:
    """The change of a layer in Stability AI's code as changes of diffusers' layers."""
    if not name.startswith("joint_blocks"):
        swapped = swap_scale_shift(change, dim=None) if "adaLN" in name else change
        return {"norm_out.linear" if "adaLN" in name else "time_text_embed.text_embedder.linear_2": swapped}
    _, number, side, *rest = name.split(".")
    block, kind, is_text = f"transformer_blocks.{number}", ".".join(rest), side == "context_block"
    if kind == "attn.qkv":
        names = [f"add_{letter}_proj" if is_text else f"to_{letter}" for letter in "qkv"]
        return {f"{block}.attn.{own}": part for own, part in zip(names, change.chunk(3), strict=True)}
    if kind == "adaLN_modulation.1":
        shorter = is_text and int(number) == last
        own = f"{block}.norm1_context.linear" if is_text else f"{block}.norm1.linear"
        return {own: swap_scale_shift(change, dim=None) if shorter else change}
    ends = {"attn.proj": "attn.to_add_out" if is_text else "attn.to_out.0"}
    ends |= {"mlp.fc1": "ff_context.net.0.proj" if is_text else "ff.net.0.proj"}
    ends |= {"mlp.fc2": "ff_context.net.2" if is_text else "ff.net.2"}
    return {f"{block}.{ends[kind]}": change}


@pytest.mark.parametrize("comfy", [False, True])
def test_stable_diffusion_3_as_sd_scripts_write_it(tmp_path: Path, comfy: bool) -> None:
    """Fused queries, keys and values, and other names throughout; diffusers reads none of it."""
    pipeline, by_hand = flow_pipeline("sd3"), flow_pipeline("sd3")
    config = pipeline.transformer.config
    width, blocks = config.attention_head_dim * config.num_attention_heads, config.num_layers
    sizes = original_layers(width, blocks)
    layers = {name: factors(*size, row) for row, (name, size) in enumerate(sizes.items())}
    tensors = dotted(layers, "diffusion_model.", alpha=True) if comfy else flattened(layers, "lora_unet_")
    save_file(tensors, tmp_path / "lora.safetensors")
    add_lora(pipeline, tmp_path / "lora.safetensors")
    with torch.no_grad():
        for name, (down, up) in layers.items():
            for own, change in of_original(name, ALPHA / RANK * up @ down, last=blocks - 1).items():
                by_hand.transformer.get_submodule(own).weight += change
    torch.testing.assert_close(drawn(pipeline), drawn(by_hand), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lead", ["lora_te1_text_model_", "text_encoder.text_model."])
def test_layers_of_a_text_encoder(tmp_path: Path, lead: str) -> None:
    pipeline, by_hand = flow_pipeline("sd3"), flow_pipeline("sd3")
    name = "encoder.layers.0.self_attn.q_proj"
    ours = next(own for own, _ in by_hand.text_encoder.named_modules() if own.endswith(name))
    layer = by_hand.text_encoder.get_submodule(ours)
    down, up = factors(layer.in_features, layer.out_features, 0)
    write = flattened if lead.startswith("lora_") else lambda layers, begin: dotted(layers, begin, alpha=True)
    save_file(write({name: (down, up)}, lead), tmp_path / "lora.safetensors")
    add_lora(pipeline, tmp_path / "lora.safetensors")
    layer.weight.data += ALPHA / RANK * up @ down
    torch.testing.assert_close(drawn(pipeline), drawn(by_hand), atol=1e-5, rtol=1e-4)


class TestRefused:
    def added(self, file: Path, kind: str = "sd3") -> None:
        add_lora(flow_pipeline(kind), file)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_of_another_family(self, tmp_path: Path, layout: str) -> None:
        """Nothing of it may be left out in silence: the images would be those of the base model."""
        write, _ = LAYOUTS[layout]
        file = tmp_path / "lora.safetensors"
        save_file(write(products(flow_pipeline("flux-dev").transformer)), file)
        with pytest.raises(DataError, match=r"lora\.safetensors.*(trained on)"):
            self.added(file)

    def test_of_a_unet(self, tmp_path: Path) -> None:
        file = tmp_path / "lora.safetensors"
        down, up = factors(16, 16, 0)
        name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        save_file(dotted({name: (down, up)}, "unet."), file)
        with pytest.raises(DataError, match="StableDiffusion3Pipeline"):
            self.added(file)

    def test_of_a_transformer_on_a_unet(self, tmp_path: Path) -> None:
        file = tmp_path / "lora.safetensors"
        save_file(dotted(products(flow_pipeline("sd3").transformer), "transformer."), file)
        with pytest.raises(DataError, match="StableDiffusionPipeline"):
            add_lora(tiny_pipeline(), file)

    def test_of_a_larger_model(self, tmp_path: Path) -> None:
        file = tmp_path / "lora.safetensors"
        save_file(dotted({"transformer_blocks.0.attn.to_q": factors(64, 64, 0)}, "transformer."), file)
        with pytest.raises(DataError, match=r"lora\.safetensors"):
            self.added(file)

    def test_half_of_a_layer(self, tmp_path: Path) -> None:
        file = tmp_path / "lora.safetensors"
        layers = products(flow_pipeline("sd3").transformer)
        tensors = dotted(layers, "diffusion_model.")
        del tensors[next(name for name in tensors if "lora_B" in name)]
        save_file(tensors, file)
        with pytest.raises(DataError, match="'up'"):
            self.added(file)

    def test_several_adapters(self, tmp_path: Path) -> None:
        file = tmp_path / "lora.safetensors"
        layers = products(flow_pipeline("sd3").transformer)
        tensors = dotted(layers, "", adapter=".learner") | dotted(layers, "", adapter=".ref")
        save_file({name: value.clone() for name, value in tensors.items()}, file)
        with pytest.raises(DataError, match="several adapters"):
            self.added(file)

    @pytest.mark.parametrize(
        ("config", "said"), [(None, PEFT_CONFIG), ({"peft_type": "LOHA"}, "LOHA"), ({"r": 2}, "lora_alpha")]
    )
    def test_a_peft_folder(self, tmp_path: Path, config: dict[str, Any] | None, said: str) -> None:
        layers = products(flow_pipeline("sd3").transformer)
        save_file(dotted(layers, "base_model.model."), tmp_path / PEFT_WEIGHTS)
        if config is not None:
            (tmp_path / PEFT_CONFIG).write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(DataError, match=said):
            self.added(tmp_path / PEFT_WEIGHTS)

    def test_a_peft_folder_of_another_family(self, tmp_path: Path) -> None:
        network = flow_pipeline("flux-dev").transformer
        get_peft_model(network, LoraConfig(r=2, target_modules=["to_q", "proj_mlp"])).save_pretrained(tmp_path)
        with pytest.raises(DataError, match=r"single_transformer_blocks.*StableDiffusion3Pipeline.*trained on"):
            self.added(tmp_path / PEFT_WEIGHTS)


def test_the_table_of_original_names_is_of_real_layers() -> None:
    pipeline = flow_pipeline("sd35")
    names = {name for name, _ in pipeline.transformer.named_modules()}
    for targets in family_of(pipeline).original_layers.values():
        assert all(target.format(0) in names for target in targets)
