"""ReLIFT with the values of its authors' released scripts; config/method/relift_authors.yaml has those of RL."""

from dataclasses import dataclass, field

from ..settings import BufferOrder, BufferSettings
from .placement import Moments, OwnStepSettings
from .relift import ReLIFT, ReLIFTSettings


@dataclass(frozen=True)
class AuthorsStepSettings(OwnStepSettings):
    """`method.sft` with `method=relift_authors`."""

    batch_size: int = 128
    optimizer: Moments = Moments.SEPARATE
    entropy_coeff: float = 1e-3


@dataclass(frozen=True)
class AuthorsReLIFTSettings(ReLIFTSettings):
    """`method` with `method=relift_authors`."""

    buffer: BufferSettings = field(default_factory=lambda: BufferSettings(order=BufferOrder.LIFO))
    sft: AuthorsStepSettings = field(default_factory=AuthorsStepSettings)


class AuthorsReLIFT(ReLIFT):
    """ReLIFT with other defaults."""

    Settings = AuthorsReLIFTSettings
