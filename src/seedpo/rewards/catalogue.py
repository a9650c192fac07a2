"""Every reward that has a name, and every CLIP that reward models start from. Nothing heavy is imported before use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seedpo.registry import Entry, Registry

DRAWING = 32
"""Height and width of the embedded world's drawings; its oracle reads nothing else."""

OURS = "Apache-2.0, as seedpo"
"""Licence of what ships with the package."""


@dataclass(frozen=True, kw_only=True)
class RewardEntry(Entry):
    """One registered reward; its target returns it, and takes the place of its weights if it has one.

    Attributes:
        scale: what its numbers mean, and in which range they lie.
        licence: of the weights, as far as their publishers state it.
        size: of the download; `None` if there is none.
        source: paper or repository that describes it.
        place: default place of its weights on the hub; `None` if it has none that could be elsewhere.
        network: ``module:function`` that returns its :class:`seedpo.rewards.networks.RewardNetwork`, from
            the place of the weights or `None`. `None` if it computes without a network.
        step_aware: whether it can judge previews of noisy images at their time step.
        latent: whether it judges noisy latents, so that nothing is decoded (:class:`seedpo.protocols.LatentReward`).
        guided: whether a judge of noisy latents reads the empty prompt, too.
        direction: whether more is better.
    """

    scale: str
    licence: str
    size: str | None = None
    source: str
    place: str | None = None
    network: str | None = None
    step_aware: bool = False
    latent: bool = False
    guided: bool = True
    direction: Literal["higher"] = "higher"


REWARDS = Registry(
    "reward",
    (
        RewardEntry(
            name="scenes-scorer",
            target="seedpo.scenes.shipped:scenes_scorer",
            network="seedpo.scenes.shipped:scorer_network",
            summary="what a simulated annotator prefers, learned from few noisy choices (hackable)",
            scale="log-odds: differences between two images of a prompt count",
            licence=OURS,
            source="docs/embedded-world.md",
            step_aware=True,
        ),
        RewardEntry(
            name="scenes-plain",
            target="seedpo.scenes.shipped:plain_scorer",
            network="seedpo.scenes.shipped:plain_network",
            summary="the same choices, learned from finished images alone; knows no time step (easier to hack)",
            scale="log-odds: differences between two images of a prompt count",
            licence=OURS,
            source="docs/reward-training.md",
        ),
        RewardEntry(
            name="scenes-few",
            target="seedpo.scenes.shipped:few_labels_scorer",
            network="seedpo.scenes.shipped:few_labels_network",
            summary="the same, from about 100 noisy choices: 64 weights on a CLIP",
            scale="log-odds: differences between two images of a prompt count",
            licence=OURS,
            source="docs/embedded-world.md",
        ),
        RewardEntry(
            name="scenes-vividness",
            target="seedpo.rewards.vividness:vividness",
            summary="how vivid an image is, whatever it shows: an aesthetic score of one aspect; reads no prompt",
            scale="per cent of full chroma, in [0, 100]",
            licence=OURS,
            source="docs/embedded-world.md",
        ),
        RewardEntry(
            name="scenes-truth",
            target="seedpo.scenes.shipped:ScenesTruth",
            summary="the simulated annotator's true utility, read by the oracle (cannot be hacked)",
            image_size=DRAWING,
            scale="utility: vividness less faults",
            licence=OURS,
            source="docs/embedded-world.md",
        ),
        RewardEntry(
            name="jpeg-compressibility",
            target="seedpo.rewards.jpeg:compressibility",
            summary="minus the size of the image as a JPEG file; reads no prompt",
            scale="kB, below 0",
            licence=OURS,
            source="arXiv 2305.13301",
        ),
        RewardEntry(
            name="jpeg-incompressibility",
            target="seedpo.rewards.jpeg:incompressibility",
            summary="the size of the image as a JPEG file; reads no prompt",
            scale="kB, above 0",
            licence=OURS,
            source="arXiv 2305.13301",
        ),
        RewardEntry(
            name="ocr",
            target="seedpo.rewards.ocr:ocr",
            summary="how much of the text in a prompt's double quotes is read in the image (extra ocr)",
            scale="share of characters that are right, in [0, 1]",
            licence="rule: Apache-2.0, as seedpo; engine and its models: Apache-2.0",
            source="arXiv 2505.05470",
        ),
        RewardEntry(
            name="pickscore",
            target="seedpo.rewards.clip_score:pickscore",
            network="seedpo.rewards.clip_score:pickscore_network",
            summary="which of two images of a prompt people prefer (CLIP-H, Pick-a-Pic)",
            scale="log-odds: about 100 times a cosine",
            licence="see its model card",
            size="about 3.9 GB",
            source="arXiv 2305.01569",
            place="yuvalkirstain/PickScore_v1",
        ),
        RewardEntry(
            name="hpsv2",
            target="seedpo.rewards.hpsv2:hpsv2",
            network="seedpo.rewards.hpsv2:hps_network",
            summary="human preference score v2: which image of a prompt people prefer (CLIP-H, HPD v2)",
            scale="a cosine, in [-1, 1]",
            licence="code Apache-2.0; weights: see the model card",
            size="about 2 GB",
            source="arXiv 2306.09341",
            place="xswu/HPSv2",
        ),
        RewardEntry(
            name="hpsv2.1",
            target="seedpo.rewards.hpsv2:hpsv21",
            network="seedpo.rewards.hpsv2:hps_network",
            summary="human preference score v2.1: v2 trained on better data",
            scale="a cosine, in [-1, 1]",
            licence="code Apache-2.0; weights: see the model card",
            size="about 2 GB",
            source="arXiv 2306.09341",
            place="xswu/HPSv2",
        ),
        RewardEntry(
            name="hpsv3",
            target="seedpo.rewards.hpsv3:hpsv3",
            network="seedpo.rewards.hpsv3:hpsv3_network",
            summary="human preference score v3: a rating by Qwen2-VL-7B, learned from HPD v3",
            scale="mu of a normal distribution, about -5 to 15: differences are log-odds, softened by its width",
            licence="code MIT; weights: see the model card; Qwen2-VL-7B Apache-2.0",
            size="about 16.6 GB",
            source="arXiv 2508.03789",
            place="MizzenAI/HPSv3",
        ),
        RewardEntry(
            name="mps",
            target="seedpo.rewards.mps:mps",
            network="seedpo.rewards.mps:mps_network",
            summary="multi-dimensional preference score: which image of a prompt people prefer over all (CLIP-H)",
            scale="log-odds: about 100 times a cosine",
            licence="code MIT; weights: see the model card",
            size="about 4.4 GB",
            source="arXiv 2405.14705",
            place="RE-N-Y/mpsv1",
        ),
        RewardEntry(
            name="mps-aesthetics",
            target="seedpo.rewards.mps:mps_aesthetics",
            network="seedpo.rewards.mps:mps_network",
            summary="the weights of mps, looking at the prompt's words for beauty",
            scale="log-odds: about 100 times a cosine",
            licence="code MIT; weights: see the model card",
            size="about 4.4 GB",
            source="arXiv 2405.14705",
            place="RE-N-Y/mpsv1",
        ),
        RewardEntry(
            name="mps-detail",
            target="seedpo.rewards.mps:mps_detail",
            network="seedpo.rewards.mps:mps_network",
            summary="the weights of mps, looking at the prompt's words for detail",
            scale="log-odds: about 100 times a cosine",
            licence="code MIT; weights: see the model card",
            size="about 4.4 GB",
            source="arXiv 2405.14705",
            place="RE-N-Y/mpsv1",
        ),
        RewardEntry(
            name="mps-alignment",
            target="seedpo.rewards.mps:mps_alignment",
            network="seedpo.rewards.mps:mps_network",
            summary="the weights of mps, looking at the prompt's words for what is where",
            scale="log-odds: about 100 times a cosine",
            licence="code MIT; weights: see the model card",
            size="about 4.4 GB",
            source="arXiv 2405.14705",
            place="RE-N-Y/mpsv1",
        ),
        RewardEntry(
            name="imagereward",
            target="seedpo.rewards.imagereward:imagereward",
            network="seedpo.rewards.imagereward:imagereward_network",
            summary="how experts rank images of a prompt: fidelity and agreement with the text (BLIP)",
            scale="standard deviations of the authors' validation scores",
            licence="code Apache-2.0; weights: see the model card",
            size="about 1.8 GB",
            source="arXiv 2304.05977",
            place="THUDM/ImageReward",
        ),
        RewardEntry(
            name="aesthetic",
            target="seedpo.rewards.aesthetic:aesthetic",
            network="seedpo.rewards.aesthetic:aesthetic_network",
            summary="how beautiful people find the image (LAION's predictor on CLIP-L); reads no prompt",
            scale="rating, about 1 to 10",
            licence="predictor Apache-2.0; CLIP: see its model card",
            size="about 1.7 GB",
            source="github.com/christophschuhmann/improved-aesthetic-predictor",
            place="trl-lib/ddpo-aesthetic-predictor",
        ),
        RewardEntry(
            name="clipscore",
            target="seedpo.rewards.clip_score:clipscore",
            network="seedpo.rewards.clip_score:clipscore_network",
            summary="agreement of image and prompt by OpenAI's CLIP-L, which learned no preferences",
            scale="100 times a cosine, at least 0",
            licence="see its model card",
            size="about 1.7 GB",
            source="arXiv 2104.08718",
            place="openai/clip-vit-large-patch14",
        ),
        RewardEntry(
            name="spm-sd15",
            target="seedpo.rewards.spm:spm_sd15",
            network="seedpo.rewards.spm:spm_network",
            summary="SPO's step-aware preference model for Stable Diffusion 1.5 (CLIP-H, Pick-a-Pic)",
            scale="log-odds: about 100 times a cosine",
            licence="weights Apache-2.0, code MIT",
            size="at most 5.2 GB",
            source="arXiv 2406.04314",
            place="SPO-Diffusion-Models/Step-Aware_Preference_Models",
            step_aware=True,
        ),
        RewardEntry(
            name="spm-sdxl",
            target="seedpo.rewards.spm:spm_sdxl",
            network="seedpo.rewards.spm:spm_network",
            summary="SPO's step-aware preference model for Stable Diffusion XL (CLIP-H, Pick-a-Pic)",
            scale="log-odds: about 100 times a cosine",
            licence="weights Apache-2.0, code MIT",
            size="at most 5.2 GB",
            source="arXiv 2406.04314",
            place="SPO-Diffusion-Models/Step-Aware_Preference_Models",
            step_aware=True,
        ),
        RewardEntry(
            name="lrm-sd15",
            target="seedpo.rewards.lrm:lrm_sd15",
            network="seedpo.rewards.lrm:sd15_network",
            summary="LPO's latent reward model of Stable Diffusion 1.5: judges noisy latents of it and of 2.1",
            scale="log-odds: a scaled cosine",
            licence="MIT",
            size="at most 3.9 GB",
            source="arXiv 2502.01051",
            place="casiatao/LRM",
            latent=True,
        ),
        RewardEntry(
            name="lrm-sd21",
            target="seedpo.rewards.lrm:lrm_sd21",
            network="seedpo.rewards.lrm:sd21_network",
            summary="LPO's latent reward model of Stable Diffusion 2.1: judges noisy latents",
            scale="log-odds: a scaled cosine",
            licence="MIT",
            size="at most 4.8 GB",
            source="arXiv 2502.01051",
            place="casiatao/LRM",
            latent=True,
        ),
        RewardEntry(
            name="lrm-sdxl",
            target="seedpo.rewards.lrm:lrm_sdxl",
            network="seedpo.rewards.lrm:sdxl_network",
            summary="LPO's latent reward model of Stable Diffusion XL: judges noisy latents",
            scale="log-odds: a scaled cosine",
            licence="MIT",
            size="at most 13.5 GB",
            source="arXiv 2502.01051",
            place="casiatao/LRM",
            latent=True,
        ),
        RewardEntry(
            name="dina-lrm",
            target="seedpo.rewards.dina_lrm:dina_lrm",
            network="seedpo.planning.latent_rewards:dina_network",
            summary="DiNa-LRM of Stable Diffusion 3.5 medium: judges noisy latents of 3 and 3.5",
            scale="Thurstone: a difference of sqrt(4 sigma^2 + 0.1) is one standard deviation",
            licence="code Apache-2.0; weights: see the model cards, also the base model's",
            size="0.3 to 0.7 GB, and its base model",
            source="arXiv 2602.11146",
            place="liuhuohuo/DiNa-LRM-SD35M-12layers",
            latent=True,
            guided=False,
        ),
    ),
)

STARTS = Registry(
    "CLIP to start from",
    (
        Entry(
            name="scenes-clip",
            target="seedpo.scenes.shipped:clip_folder",
            summary="a small CLIP of the embedded world, trained on captions; `seedpo reward train` starts from it",
        ),
    ),
)
