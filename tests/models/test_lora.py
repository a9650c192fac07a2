"""The form of a LoRA: alpha, groups of layers, dropout and DoRA compute what they say, and files keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from safetensors.numpy import load_file
from torch import Tensor

from seedpo.errors import ConfigError
from seedpo.models.kohya import kohya_weights
from seedpo.models.loading import add_trained
from seedpo.models.lora import adapted_layers
from seedpo.models.lora_file import LORA_FILE, by_part, read_description, read_layers
from seedpo.models.policy import PipelinePolicy
from seedpo.models.settings import LoraForm, ModelSettings
from seedpo.settings import Precision, build_config
from seedpo.training.configuration import resolve_config
from tests.models.published import drawn_by_diffusers, drawn_by_policy, pipeline_of, some_latents
from tests.models.tiny import move, network_inputs, on_reference, tiny_policy

FORMS = {
    "alpha": LoraForm(rank=2, alpha=6.0),
    "everything": LoraForm(rank=2, alpha=1.0, targets=("all",)),
    "mlp": LoraForm(rank=3, targets=("mlp",)),
    "convolution": LoraForm(rank=2, targets=("convolution", "attention")),
    "dora": LoraForm(rank=2, alpha=1.0, targets=("all",), dora=True),
}
EACH = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def policy_of(kind: str, form: LoraForm, **options: Any) -> PipelinePolicy:
    return PipelinePolicy(pipeline_of(kind), lora=form, **options)


class TestStart:
    @EACH
    @pytest.mark.parametrize("precision", ["no", "bf16"])
    def test_equals_the_reference(self, form: LoraForm, precision: Precision) -> None:
        policy = policy_of("sd15", form, mixed_precision=precision)
        inputs = network_inputs(policy)
        assert torch.equal(policy.predict(*inputs), on_reference(policy, *inputs))

    @EACH
    def test_every_weight_has_a_gradient_that_arrives(self, form: LoraForm) -> None:
        policy = move(policy_of("sd15", form))
        policy.predict(*network_inputs(policy)).square().mean().backward()
        gradients = {name: value.grad for name, value in policy.trainable_parameters().items()}
        assert all(value is not None and value.abs().max() > 0 for value in gradients.values())


class TestMathematics:
    def test_the_product_is_scaled_by_alpha_over_rank(self) -> None:
        policy = move(policy_of("sd15", FORMS["everything"]), scale=0.3).pipeline.unet.double()
        kinds = set()
        for _, layer in adapted_layers(policy):
            base, down, up = layer.get_base_layer(), layer.lora_A["default"].weight, layer.lora_B["default"].weight
            product = (up.flatten(1) @ down.flatten(1)).reshape(base.weight.shape)
            changed = base.weight + 0.5 * product  # alpha 1, rank 2
            kinds.add(type(base).__name__)
            torch.testing.assert_close(layer(values_for(base)), applied(base, changed))
        assert kinds == {"Linear", "Conv2d"}

    def test_dora_trains_the_norm_of_each_row(self) -> None:
        """arXiv 2402.09353, equation 5: m (W + s B A) / |W + s B A|, row by row."""
        policy = move(policy_of("sd15", FORMS["dora"]), scale=0.3).pipeline.unet.double()
        for _, layer in adapted_layers(policy):
            base, down, up = layer.get_base_layer(), layer.lora_A["default"].weight, layer.lora_B["default"].weight
            direction = (base.weight.flatten(1) + 0.5 * up.flatten(1) @ down.flatten(1)).reshape(base.weight.shape)
            norms = direction.flatten(1).norm(dim=1)
            magnitude = layer.lora_magnitude_vector["default"].weight.flatten()
            factor = (magnitude / norms).reshape(-1, *[1] * (direction.ndim - 1))
            torch.testing.assert_close(layer(values_for(base)), applied(base, factor * direction))

    def test_groups_hold_the_layers_that_they_name(self) -> None:
        def endings(targets: tuple[str, ...]) -> set[str]:
            network = policy_of("sd15", LoraForm(rank=2, targets=targets)).network
            return {name.rpartition(".")[2] for name, _ in adapted_layers(network)}

        attention, mlp, convolution = endings(("attention",)), endings(("mlp",)), endings(("convolution",))
        assert attention == {"to_q", "to_k", "to_v", "0"}
        assert mlp == {"proj", "2", "proj_in", "proj_out"}
        assert convolution == {"conv", "conv1", "conv2", "conv_shortcut"}
        assert endings(("all",)) == attention | mlp | convolution


def values_for(layer: Any) -> Tensor:
    weight = layer.weight
    shape = (3, weight.shape[1], 4, 4) if weight.ndim == 4 else (3, weight.shape[1])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def applied(layer: Any, weight: Tensor) -> Tensor:
    values: Tensor = torch.func.functional_call(layer, {"weight": weight, "bias": layer.bias}, values_for(layer))
    return values


class TestFiles:
    @EACH
    @pytest.mark.parametrize("kind", ["sd15", "sdxl"])
    def test_plain_diffusers_draws_the_same_images(self, tmp_path: Path, kind: str, form: LoraForm) -> None:
        policy = move(policy_of(kind, form), scale=0.1)
        policy.save(tmp_path)
        latents = some_latents(policy)
        plain = pipeline_of(kind)
        before = drawn_by_diffusers(plain, latents)
        plain.load_lora_weights(tmp_path)
        expected = drawn_by_policy(policy, latents)
        assert (expected - before).abs().max() > 0.01
        torch.testing.assert_close(drawn_by_diffusers(plain, latents), expected, rtol=0, atol=1e-4)

    @EACH
    def test_a_file_says_how_it_is_built(self, tmp_path: Path, form: LoraForm) -> None:
        policy = move(policy_of("sd15", form), scale=0.1)
        policy.save(tmp_path)
        described = read_description(tmp_path / LORA_FILE, "unet")
        assert (described["r"], described["use_dora"]) == (form.rank, form.dora)
        assert described["lora_alpha"] == (form.rank if form.alpha is None else form.alpha)
        pipeline = pipeline_of("sd15")
        add_trained(pipeline, tmp_path, adapter="lora")
        other = PipelinePolicy(pipeline_of("sd15"), lora=form)
        other.load(tmp_path)
        inputs = network_inputs(policy)
        expected = policy.predict(*inputs)
        assert torch.equal(other.predict(*inputs), expected)
        latents, times, conditioning = inputs
        with torch.no_grad():
            drawn = pipeline.unet(latents, times, encoder_hidden_states=conditioning.prompt_embeds).sample
        assert torch.equal(drawn, expected)

    @pytest.mark.parametrize("kind", ["sd15", "sdxl"])
    def test_web_ui_names_of_a_dora(self, tmp_path: Path, kind: str) -> None:
        """diffusers leaves `dora_scale` out when it loads; its own conversion of the names knows it."""
        form = LoraForm(rank=2, targets=("all",), dora=True)
        move(policy_of(kind, form), scale=0.1).save(tmp_path)
        layers = by_part(read_layers(load_file(tmp_path / LORA_FILE)))["unet"]
        converted, scales = _convert_non_diffusers_lora_to_diffusers(
            {name: torch.from_numpy(value) for name, value in kohya_weights(layers).items()}
        )
        assert set(scales.values()) == {2.0}
        assert len(converted) == len(layers)
        norms = {name: value for name, value in converted.items() if "magnitude" in name}
        assert len(norms) == len(layers) // 3
        plain, expected = pipeline_of(kind), pipeline_of(kind)
        plain.load_lora_weights(converted)
        expected.load_lora_weights(tmp_path)
        latents = some_latents(PipelinePolicy(pipeline_of(kind)))
        assert torch.equal(drawn_by_diffusers(plain, latents), drawn_by_diffusers(expected, latents))


class TestDropout:
    form = LoraForm(rank=4, dropout=0.5)

    def test_only_passes_with_a_gradient_are_thinned(self) -> None:
        policy, whole = move(tiny_policy(lora=self.form)), move(tiny_policy())
        inputs = network_inputs(policy)
        with torch.no_grad():
            assert torch.equal(policy.predict(*inputs), whole.predict(*inputs))
        assert torch.equal(on_reference(policy, *inputs), on_reference(whole, *inputs))
        assert (policy.predict(*inputs) - whole.predict(*inputs)).abs().max() > 1e-4

    def test_comes_again_from_the_global_state(self) -> None:
        policy = move(tiny_policy(lora=self.form))
        inputs = network_inputs(policy)
        with torch.random.fork_rng(devices=[]):
            state = torch.get_rng_state()
            first, second = policy.predict(*inputs), policy.predict(*inputs)
            torch.set_rng_state(state)
            again = policy.predict(*inputs)
        assert torch.equal(first, again)
        assert not torch.equal(first, second)

    def test_its_mean_is_the_whole_input(self) -> None:
        layer = next(layer for _, layer in adapted_layers(tiny_policy(lora=self.form).network))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            dropped = layer.lora_dropout["default"](torch.ones(100, 1000, requires_grad=True))
        assert set(dropped.unique().tolist()) == {0.0, 2.0}
        assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)

    def test_gradient_checkpointing_recomputes_the_same_pass(self) -> None:
        gradients = []
        for checkpointing in (False, True):
            policy = move(policy_of("sd15", self.form, gradient_checkpointing=checkpointing))
            inputs = network_inputs(policy)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                policy.predict(*inputs).square().mean().backward()
            gradients.append([value.grad for value in policy.trainable_parameters().values()])
        for plain, again in zip(*gradients, strict=True):
            torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-8)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"lora_rank": 9, "lora_targets": ("all",)},
                r"lora_rank = 9 is above 8, the width of .*; set lora_rank to at most 8",
            ),
            (
                {"lora_targets": ("attention", "heads")},
                r"lora_targets: .*'heads'; there are: attention, mlp, conv.*all",
            ),
        ],
    )
    def test_forms_that_do_not_fit_the_network(self, changes: dict[str, Any], message: str) -> None:
        settings = ModelSettings(**changes)
        with pytest.raises(ConfigError, match=message):
            policy_of("sd15", settings.lora)

    @pytest.mark.parametrize(
        ("key", "value"),
        [("lora_alpha", 0), ("lora_dropout", 1.0), ("lora_dropout", -0.1), ("lora_targets", []), ("lora_rank", 0)],
    )
    def test_values_out_of_range_are_named(self, key: str, value: Any) -> None:
        with pytest.raises(ConfigError, match=key):
            build_config(ModelSettings, {key: value})

    def test_dropout_where_it_has_no_meaning(self) -> None:
        with pytest.raises(ConfigError, match="lora_dropout must be 0 with lora_dora"):
            build_config(ModelSettings, {"lora_dropout": 0.1, "lora_dora": True})
        for method in ("spo", "d3po"):
            with pytest.raises(ConfigError, match=f"lora_dropout = 0.1 must be 0 for {method}"):
                resolve_config(method, {"lora_dropout": 0.1})
        assert resolve_config("diffusion-dpo", {"lora_dropout": 0.1}).lora.dropout == 0.1
