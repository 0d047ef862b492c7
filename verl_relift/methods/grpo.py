"""Reinforcement learning alone: verl's GRPO."""

from .base import Method


class GRPO(Method):
    """The policy update on all rollouts and nothing else."""
