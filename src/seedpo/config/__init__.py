"""Every key of a run, typed and strict.

A recipe is a YAML file that holds only what differs from the defaults here and from the method's preset. The resolved
configuration is written into each run folder and rebuilds the run.
"""

from seedpo.config.alarms import AlarmsConfig
from seedpo.config.feedback import FeedbackConfig
from seedpo.config.pairs import CacheConfig, PairsConfig
from seedpo.config.recipes import (
    build_config,
    merge,
    nested,
    parse_override,
    plain_value,
    read_recipe,
    save_config,
)
from seedpo.config.reward_run import RewardRunConfig
from seedpo.config.rewards import RewardTerm, WeightedSum
from seedpo.config.rollouts import SamplingConfig, StepPoolConfig, TrajectoryConfig
from seedpo.config.run import EvaluationConfig, FidelityConfig, RunConfig
from seedpo.config.training import OptimizerConfig, TrainingConfig

__all__ = [
    "AlarmsConfig",
    "CacheConfig",
    "EvaluationConfig",
    "FeedbackConfig",
    "FidelityConfig",
    "OptimizerConfig",
    "PairsConfig",
    "RewardRunConfig",
    "RewardTerm",
    "RunConfig",
    "SamplingConfig",
    "StepPoolConfig",
    "TrainingConfig",
    "TrajectoryConfig",
    "WeightedSum",
    "build_config",
    "merge",
    "nested",
    "parse_override",
    "plain_value",
    "read_recipe",
    "save_config",
]
