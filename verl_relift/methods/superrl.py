"""SuperRL (arXiv 2506.01096): SFT on questions that no rollout answers, GRPO elsewhere; HPT with a gate at 0."""

from dataclasses import dataclass

from .hpt import HPT, HPTSettings


@dataclass(frozen=True)
class SuperRLSettings(HPTSettings):
    """`method` with `method=superrl`."""

    clip: bool = True


class SuperRL(HPT):
    """HPT under the name of the paper before it, and with GRPO as verl has it."""

    Settings = SuperRLSettings
