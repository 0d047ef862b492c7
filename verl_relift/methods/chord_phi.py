"""CHORD with the weight p (1 - p) on each token, and a small constant mu."""

from dataclasses import dataclass, field

from .chord_mu import CHORD, CHORDSettings, StreamSettings
from .schedule import RiseAndFall
from .weight import TokenWeight


@dataclass(frozen=True)
class PhiSettings(CHORDSettings):
    """`method` with `method=chord_phi`."""

    sft: StreamSettings = field(default_factory=lambda: StreamSettings(token_weight=TokenWeight.PHI))
    mu: RiseAndFall = field(default_factory=lambda: RiseAndFall(peak=0.1, valley=0.1))


class CHORDPhi(CHORD):
    """CHORD with other defaults."""

    Settings = PhiSettings
