"""Names of keys in other trainers (kohya, diffusers, TRL, SimpleTuner, OneTrainer), and what they are here.

Only names that no search leads to the right key: ``adam_epsilon`` is near ``optimizer.epsilon`` anyway.
"""

from __future__ import annotations

from collections.abc import Mapping

SAME: Mapping[str, tuple[str, ...]] = {
    name: keys
    for names, keys in {
        "network_dim rank r lora_r lora_dim lora": ("lora_rank",),
        "network_alpha alpha": ("lora_alpha",),
        "network_dropout": ("lora_dropout",),
        "dora use_dora": ("lora_dora",),
        "train_text_encoder": ("lora_text_encoder",),
        "target_modules network_module": ("lora_targets",),
        "train_type full_finetune use_lora peft": ("adapter",),
        "pretrained_model_name_or_path model_name_or_path base_model checkpoint unet": ("model",),
        "pretrained_vae_model_name_or_path vae_path": ("vae",),
        "precision dtype weight_dtype fp16 bf16": ("mixed_precision",),
        "torch_compile": ("compile",),
        "dataset dataset_name train_data_dir instance_data_dir": ("data",),
        "dataset_split_name": ("pairs.split",),
        "dataloader_num_workers max_data_loader_n_workers num_workers": ("pairs.readers",),
        "random_flip flip_aug": ("pairs.flip",),
        "enable_bucket bucket aspect_bucketing crop_aspect": ("pairs.buckets",),
        "center_crop random_crop": ("pairs.crop",),
        "proportion_empty_prompts caption_dropout_rate caption_dropout_probability": ("pairs.empty_prompts",),
        "cache_latents_to_disk cache_text_encoder_outputs": ("cache.folder",),
        "reward_fn reward_model reward_model_path": ("reward",),
        "train_batch_size per_device_train_batch_size": ("batch_size",),
        "max_train_steps num_train_steps train_steps iterations": ("max_steps",),
        "max_train_epochs num_train_epochs num_epochs epochs": ("max_steps",),
        "lr unet_lr": ("learning_rate",),
        "lr_scheduler lr_scheduler_type": ("optimizer.schedule",),
        "lr_scheduler_num_cycles lr_num_cycles": ("optimizer.schedule_cycles",),
        "lr_power lr_scheduler_power": ("optimizer.schedule_power",),
        "optimizer_type use_8bit_adam": ("optimizer.name",),
        "adam_beta1": ("optimizer.beta1",),
        "adam_beta2": ("optimizer.beta2",),
        "gradient_clip_val clip_grad_norm max_norm": ("optimizer.max_grad_norm",),
        "beta_dpo dpo_beta flow_dpo_beta": ("beta",),
        "sde_type dynamics_type": ("flow.sde",),
        "noise_level": ("sampling.eta",),
        "weighting_scheme timestep_sampling flow_use_uniform_schedule": ("flow.density",),
        "loss_type": ("loss",),
        "entropy entropy_coef entropy_weight": ("gamma",),
        "group_size num_images num_images_per_prompt num_image_per_prompt num_generations": (
            "groups.images_per_prompt",
            "trajectories.images_per_prompt",
            "steps.candidates",
        ),
        "init_same_noise same_latent": ("groups.shared_noise",),
        "global_std adv_estimator": ("groups.normalise",),
        "adv_clip_max": ("objective.advantage_limit",),
        "sde_window_size num_sde_steps": ("step_groups.trained_steps",),
        "sde_window_range": ("step_groups.window_range",),
        "snr_gamma": ("noise_weight", "min_snr_gamma"),
        "use_ema ema": ("ema_decay",),
        "use_ema_ref ref_model_sync_steps sync_ref_model reset_freq": ("reference.kind",),
        "decay_ema ema_ref_decay ref_model_mixup_alpha": ("reference.decay",),
        "cfg_scale cfg guidance": ("sampling.guidance_scale",),
        "num_steps sample_num_steps ddim_steps": ("sampling.num_inference_steps",),
        "checkpointing_steps save_every_n_steps save_steps": ("checkpoint_every",),
        "save_total_limit save_last_n_steps": ("checkpoints_limit",),
        "logging_steps": ("log_every",),
        "validation_steps eval_steps": ("evaluate_every",),
        "validation_prompt validation_prompts sample_prompts": ("evaluation.prompts",),
        "report_to log_with": ("trackers",),
        "wandb_project tracker_project_name": ("tracker_project",),
    }.items()
    for name in names.split()
}
"""Our keys, dotted in full, by their foreign names."""

ELSEWHERE: Mapping[str, str] = {
    name: text
    for names, text in {
        "output_dir logging_dir": "write --out FOLDER after the command",
        "resume resume_from_checkpoint": "write --resume latest after the command",
        "num_processes num_gpus": "write --processes N after the command",
        "push_to_hub hub_model_id": "write --push-to-hub OWNER/NAME after the command",
        "network_train_unet_only": "leave lora_text_encoder out: the denoising network alone is trained by default",
        "text_encoder_lr text_encoder_learning_rate": (
            "not supported, because learning_rate holds for all that is trained; lora_text_encoder trains text encoders"
        ),
        "noise_offset input_perturbation": (
            "not supported, because policy and reference are compared under the model's own noise"
        ),
        "negative_prompt": "not supported, because the policy is guided against the empty prompt while it is trained",
        "label_smoothing": "not supported, because no published method has it; pairs.ties and loss say what there is",
        "reference_free": "not supported, because every loss here compares the policy with its reference",
        "prior_loss_weight with_prior_preservation": (
            "not supported, because the reference holds what the model knew; beta weighs it"
        ),
        "flow_shift flow_schedule_shift discrete_flow_shift": (
            "not supported, because it is read from the model's scheduler; flow.density says if training follows it"
        ),
        "prediction_type v_parameterization": "not supported, because it is read from the model's scheduler",
        "scale_lr": "not supported, because learning_rate is what is used; multiply it yourself",
        "enable_xformers_memory_efficient_attention xformers sdpa": (
            "not supported, because PyTorch's memory-efficient attention is used anyway"
        ),
    }.items()
    for name in names.split()
}
"""What to do about foreign names that are no key here."""
