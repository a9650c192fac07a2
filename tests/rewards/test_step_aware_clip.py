from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPTokenizer

from seedpo.errors import DataError
from seedpo.rewards.preprocessing import CLIP_MEAN, CLIP_STD
from seedpo.rewards.step_aware_clip import StepAwareCLIP, StepAwareScorer, load_scorer, normalise
from tests.rewards.tiny_clip import WIDTH, disturb, tiny_config, tiny_model, tiny_tokenizer
from tools.scenes.components import PROMPT_LENGTH

PROMPTS = ["a large red circle on a gray background", "a small blue star on a white background", "a ring"]
PADDED = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}


def pixels(rows: int = 3, *, seed: int = 1) -> Tensor:
    return torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def trained(tokenizer: CLIPTokenizer) -> StepAwareCLIP:
    model = tiny_model(tokenizer).eval()
    disturb(model)
    return model


@pytest.fixture
def folder(trained: StepAwareCLIP, tokenizer: CLIPTokenizer, tmp_path: Path) -> Path:
    """A scorer as it is shipped."""
    trained.save_pretrained(tmp_path / "scorer")
    tokenizer.save_pretrained(tmp_path / "scorer")
    return tmp_path / "scorer"


class TestStart:
    @pytest.mark.parametrize("timestep", [0, 1, 251, 951])
    def test_images_are_seen_as_plain_clip_sees_them(self, tokenizer: CLIPTokenizer, timestep: int) -> None:
        model = tiny_model(tokenizer).eval()
        plain = CLIPModel(tiny_config(tokenizer)).eval()
        plain.load_state_dict({name: value for name, value in model.state_dict().items() if name in plain.state_dict()})
        inputs = normalise(pixels(), 8)
        with torch.no_grad():
            wanted = normalize(plain.get_image_features(pixel_values=inputs).pooler_output, dim=-1)
            embeds = model.image_embeds(inputs, torch.full((3,), timestep))
        torch.testing.assert_close(embeds, wanted, rtol=0, atol=1e-6)

    def test_scores_are_the_logits_of_plain_clip(self, tokenizer: CLIPTokenizer) -> None:
        model = tiny_model(tokenizer).eval()
        plain = CLIPModel(tiny_config(tokenizer)).eval()
        plain.load_state_dict({name: value for name, value in model.state_dict().items() if name in plain.state_dict()})
        with torch.no_grad():
            output = plain(pixel_values=normalise(pixels(), 8), **tokenizer(PROMPTS, **PADDED))
        scores = StepAwareScorer(model, tokenizer)(pixels(), PROMPTS)
        torch.testing.assert_close(scores, output.logits_per_image.diagonal(), rtol=0, atol=1e-5)

    def test_it_can_start_from_a_plain_checkpoint(self, tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
        torch.manual_seed(2)
        plain = CLIPModel(tiny_config(tokenizer)).eval()
        plain.save_pretrained(tmp_path)
        model = StepAwareCLIP.from_pretrained(tmp_path).eval()
        model.reset_modulation()
        inputs = normalise(pixels(), 8)
        with torch.no_grad():
            wanted = normalize(plain.get_image_features(pixel_values=inputs).pooler_output, dim=-1)
            torch.testing.assert_close(model.image_embeds(inputs, torch.full((3,), 500)), wanted, rtol=0, atol=1e-6)

    def test_the_time_step_can_be_learnt_from_the_start(self, tokenizer: CLIPTokenizer) -> None:
        """The identity is no dead end: its modulations have gradients."""
        model = tiny_model(tokenizer)
        model.image_embeds(normalise(pixels(), 8), torch.tensor([0, 300, 900])).square()[:, 0].sum().backward()
        for layer in model.vision_model.encoder.layers:
            gradient = layer.adaLN_modulation[1].weight.grad.view(6, WIDTH, WIDTH)
            assert (gradient.abs().amax((1, 2)) > 0).all()
        assert model.vision_model.adaLN_modulation[1].weight.grad.abs().max() > 0


class TestModulation:
    """A constant modulation is the plain CLIP with other layer norms and output projections, part by part."""

    PARTS = ("shift of the attention", "scale of the attention", "gate of the attention")
    PARTS += ("shift of the mlp", "scale of the mlp", "gate of the mlp")

    @staticmethod
    def embeds(model: CLIPModel) -> Tensor:
        inputs = normalise(pixels(), 8)
        with torch.no_grad():
            if isinstance(model, StepAwareCLIP):
                return model.image_embeds(inputs, torch.tensor([0, 300, 900]))
            return normalize(model.get_image_features(pixel_values=inputs).pooler_output, dim=-1)

    @staticmethod
    def plain(model: StepAwareCLIP) -> CLIPModel:
        plain = CLIPModel(model.config).eval()
        plain.load_state_dict({name: value for name, value in model.state_dict().items() if name in plain.state_dict()})
        return plain

    @torch.no_grad()
    @pytest.mark.parametrize("part", range(6), ids=lambda part: TestModulation.PARTS[part])
    def test_of_a_block(self, tokenizer: CLIPTokenizer, part: int) -> None:
        """The order of the six parts is that of SPO's checkpoints, which is that of DiT (arXiv 2212.09748)."""
        model = tiny_model(tokenizer).eval()
        value = 1 + torch.rand(WIDTH, generator=torch.Generator().manual_seed(1))
        plain = self.plain(model)
        model.vision_model.encoder.layers[1].adaLN_modulation[1].bias.view(6, WIDTH)[part] = value
        layer = plain.vision_model.encoder.layers[1]
        norm = (layer.layer_norm1, layer.layer_norm2)[part // 3]
        output = (layer.self_attn.out_proj, layer.mlp.fc2)[part // 3]
        if part % 3 == 0:
            norm.bias += value
        elif part % 3 == 1:
            norm.weight *= 1 + value
            norm.bias *= 1 + value
        else:
            output.weight *= value[:, None]
            output.bias *= value
        assert (self.embeds(plain) - self.embeds(tiny_model(tokenizer).eval())).abs().max() > 1e-3
        torch.testing.assert_close(self.embeds(model), self.embeds(plain), rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_before_the_projection(self, tokenizer: CLIPTokenizer) -> None:
        """First the shift, then the scale."""
        model = tiny_model(tokenizer).eval()
        shift, scale = torch.rand(2, WIDTH, generator=torch.Generator().manual_seed(1))
        plain = self.plain(model)
        model.vision_model.adaLN_modulation[1].bias.copy_(torch.cat([shift, scale]))
        norm = plain.vision_model.post_layernorm
        norm.weight *= 1 + scale
        norm.bias *= 1 + scale
        norm.bias += shift
        torch.testing.assert_close(self.embeds(model), self.embeds(plain), rtol=0, atol=1e-5)


class TestTimeStep:
    def test_a_trained_model_sees_the_time_step(self, trained: StepAwareCLIP, tokenizer: CLIPTokenizer) -> None:
        scorer = StepAwareScorer(trained, tokenizer)
        scores = torch.stack(
            [scorer(pixels(), PROMPTS, timestep=torch.full((3,), step)) for step in (0, 251, 501, 951)]
        )
        for row in range(4):
            for other in range(row):
                assert (scores[row] - scores[other]).abs().max() > 1e-4

    def test_without_one_the_image_is_clean(self, trained: StepAwareCLIP, tokenizer: CLIPTokenizer) -> None:
        scorer = StepAwareScorer(trained, tokenizer)
        at_zero = scorer(pixels(), PROMPTS, timestep=torch.zeros(3, dtype=torch.int64))
        assert torch.equal(scorer(pixels(), PROMPTS), at_zero)

    def test_each_row_has_its_own(self, trained: StepAwareCLIP, tokenizer: CLIPTokenizer) -> None:
        scorer = StepAwareScorer(trained, tokenizer)
        steps = torch.tensor([0, 500, 900])
        together = scorer(pixels(), PROMPTS, timestep=steps)
        for row in range(3):
            one = slice(row, row + 1)
            alone = scorer(pixels()[one], PROMPTS[one], timestep=steps[one])
            torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-5)


class TestCheckpoints:
    def test_names_and_shapes_are_those_of_spo(self, trained: StepAwareCLIP) -> None:
        """As in the published checkpoints of SPO's step-aware preference models, for vision width D."""
        added = {
            "t_embedder.mlp.0.weight": (WIDTH, 256),
            "t_embedder.mlp.0.bias": (WIDTH,),
            "t_embedder.mlp.2.weight": (WIDTH, WIDTH),
            "t_embedder.mlp.2.bias": (WIDTH,),
            "vision_model.adaLN_modulation.1.weight": (2 * WIDTH, WIDTH),
            "vision_model.adaLN_modulation.1.bias": (2 * WIDTH,),
        }
        for layer in range(2):
            added[f"vision_model.encoder.layers.{layer}.adaLN_modulation.1.weight"] = (6 * WIDTH, WIDTH)
            added[f"vision_model.encoder.layers.{layer}.adaLN_modulation.1.bias"] = (6 * WIDTH,)
        plain = CLIPModel(trained.config).state_dict()
        shapes = {name: tuple(value.shape) for name, value in trained.state_dict().items()}
        assert {name: shape for name, shape in shapes.items() if name not in plain} == added
        assert plain.keys() <= shapes.keys()

    def test_a_saved_scorer_scores_the_same(
        self, trained: StepAwareCLIP, tokenizer: CLIPTokenizer, folder: Path
    ) -> None:
        wanted = StepAwareScorer(trained, tokenizer)(pixels(), PROMPTS, timestep=torch.tensor([0, 400, 900]))
        loaded = load_scorer(folder)
        assert torch.equal(loaded(pixels(), PROMPTS, timestep=torch.tensor([0, 400, 900])), wanted)
        assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
        assert not loaded.model.training

    def test_a_text_path_will_do(self, folder: Path) -> None:
        assert load_scorer(str(folder))(pixels(), PROMPTS).shape == (3,)

    def test_weights_are_safetensors(self, folder: Path) -> None:
        assert (folder / "model.safetensors").is_file()
        assert not [path for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pkl"}]

    def test_half_precision_weights_are_widened(
        self, trained: StepAwareCLIP, tokenizer: CLIPTokenizer, folder: Path
    ) -> None:
        trained.half().save_pretrained(folder)
        loaded = load_scorer(folder)
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
        assert loaded(pixels(), PROMPTS).dtype == torch.float32


class TestBrokenFolders:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nothing has no config\.json"):
            load_scorer(tmp_path / "nothing")

    @pytest.mark.parametrize(
        "name", ["t_embedder.mlp.0.weight", "vision_model.adaLN_modulation.1.bias", "visual_projection.weight"]
    )
    def test_missing_weights_are_named(self, folder: Path, name: str) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights[name]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(DataError, match=f"lacks weights, for example '{name}'"):
            load_scorer(folder)

    def test_a_plain_clip_is_no_scorer(self, tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
        CLIPModel(tiny_config(tokenizer)).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(DataError, match="lacks weights, for example 't_embedder"):
            load_scorer(tmp_path)

    def test_no_weights_at_all(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(DataError, match="cannot be loaded"):
            load_scorer(folder)

    def test_pickled_weights_are_not_read(self, folder: Path) -> None:
        shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")
        with pytest.raises(DataError, match="cannot be loaded"):
            load_scorer(folder)

    def test_a_broken_file(self, folder: Path) -> None:
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match="cannot be loaded"):
            load_scorer(folder)

    def test_weights_of_another_size(self, folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["visual_projection.weight"] = torch.zeros(5, WIDTH)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(DataError, match="cannot be loaded"):
            load_scorer(folder)

    def test_a_broken_configuration(self, folder: Path) -> None:
        (folder / "config.json").write_text("{", encoding="utf-8")
        with pytest.raises(DataError, match="cannot be loaded"):
            load_scorer(folder)

    def test_no_tokenizer(self, folder: Path) -> None:
        """transformers would make one without words, which reads every prompt as the same."""
        for path in folder.iterdir():
            if path.name not in {"config.json", "model.safetensors"}:
                path.unlink()
        with pytest.raises(DataError, match=r"has none of tokenizer\.json, vocab\.json"):
            load_scorer(folder)


class TestScorer:
    @pytest.fixture
    def scorer(self, trained: StepAwareCLIP, tokenizer: CLIPTokenizer) -> StepAwareScorer:
        return StepAwareScorer(trained, tokenizer)

    @pytest.mark.parametrize("rows", [1, 2, 3])
    def test_one_finite_score_per_image(self, scorer: StepAwareScorer, rows: int) -> None:
        scores = scorer(pixels(rows), PROMPTS[:rows])
        assert scores.shape == (rows,)
        assert scores.dtype == torch.float32
        assert torch.isfinite(scores).all()
        assert not scores.requires_grad

    def test_each_prompt_is_embedded_once(self, scorer: StepAwareScorer, monkeypatch: pytest.MonkeyPatch) -> None:
        embedded: list[int] = []
        embed = scorer.model.text_embeds

        def counting(**arguments: Tensor) -> Tensor:
            embedded.append(len(arguments["input_ids"]))
            return embed(**arguments)

        monkeypatch.setattr(scorer.model, "text_embeds", counting)
        first = scorer(pixels(), [PROMPTS[0], PROMPTS[1], PROMPTS[0]])
        again = scorer(pixels(), [PROMPTS[0], PROMPTS[1], PROMPTS[0]])
        assert embedded == [1, 1]
        assert torch.equal(first, again)
        scorer(pixels(), [PROMPTS[1], PROMPTS[2], PROMPTS[2]])
        assert embedded == [1, 1, 1]

    def test_what_was_scored_before_makes_no_difference(self, folder: Path) -> None:
        """To the last bit: a resumed run begins without the embeddings that the first one had."""
        image, (fresh, used) = pixels(1), (load_scorer(folder) for _ in range(2))
        used(pixels(3), PROMPTS[:3])
        assert torch.equal(used(image, PROMPTS[1:2]), fresh(image, PROMPTS[1:2]))

    def test_the_prompt_matters(self, scorer: StepAwareScorer) -> None:
        image = pixels(1)
        assert scorer(image, PROMPTS[:1]).item() != scorer(image, PROMPTS[1:2]).item()

    def test_long_prompts_are_cut(self, scorer: StepAwareScorer) -> None:
        """Start and end take two of the tokens; each word of this world is one."""
        words = ("red blue star ring " * 10).split()
        cut = " ".join(words[: PROMPT_LENGTH - 2])
        assert torch.equal(scorer(pixels(1), [" ".join(words)]), scorer(pixels(1), [cut]))
        assert not torch.equal(scorer(pixels(1), [" ".join(words[:3])]), scorer(pixels(1), [cut]))

    def test_half_precision_images_are_taken(self, scorer: StepAwareScorer) -> None:
        torch.testing.assert_close(scorer(pixels().half(), PROMPTS), scorer(pixels(), PROMPTS), rtol=0, atol=1e-2)

    def test_images_of_another_size_are_resized(self, scorer: StepAwareScorer) -> None:
        large = pixels().repeat_interleave(4, 2).repeat_interleave(4, 3)
        assert scorer(large, PROMPTS).shape == (3,)
        plain = torch.full((1, 3, 32, 32), 0.5)
        torch.testing.assert_close(
            scorer(plain, PROMPTS[:1]), scorer(plain[..., :8, :8], PROMPTS[:1]), rtol=0, atol=1e-4
        )


class TestNormalise:
    def test_mean_and_deviation(self) -> None:
        normalised = normalise(torch.tensor(CLIP_MEAN).view(1, 3, 1, 1).expand(1, 3, 8, 8), 8)
        torch.testing.assert_close(normalised, torch.zeros(1, 3, 8, 8))
        lighter = torch.tensor(CLIP_MEAN) + torch.tensor(CLIP_STD)
        torch.testing.assert_close(normalise(lighter.view(1, 3, 1, 1).expand(1, 3, 8, 8), 8), torch.ones(1, 3, 8, 8))

    def test_resizing_stays_in_range(self) -> None:
        """Bicubic resizing overshoots at edges; the images stay in [0, 1]."""
        image = torch.zeros(1, 3, 32, 32)
        image[..., 15:] = 1.0
        resized = normalise(image, 14) * torch.tensor(CLIP_STD).view(3, 1, 1) + torch.tensor(CLIP_MEAN).view(3, 1, 1)
        assert resized.shape == (1, 3, 14, 14)
        assert resized.min() >= -1e-6
        assert resized.max() <= 1 + 1e-6
