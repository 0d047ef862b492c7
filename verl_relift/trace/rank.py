"""The process of one rank: `python -m verl_relift.trace.rank FOLDER`.

FOLDER holds `work.json` (fields of `Work`), `config.yaml` (the resolved configuration) and `model/config.json`; the
result is written to `result.json` in it.
"""

import json
import os
import sys
from pathlib import Path

from ..run.environment import SPEED_PATCHES, prepare_environment
from .work import Work


def _prepare(work: Work, speed_patches: bool) -> None:
    """Make this a process that runs on a CPU without Transformer Engine, whatever is installed and set."""
    os.environ |= {
        "VERL_PLATFORM": "cpu",
        "VERL_RELIFT_TRANSFORMER_ENGINE": "0",
        SPEED_PATCHES: "1" if speed_patches else "0",
        "RANK": str(work.rank),
        "WORLD_SIZE": str(work.world_size),
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    prepare_environment()
    for package in ("transformer_engine", "apex"):
        sys.modules[package] = None


def _write_tokenizer(folder: Path) -> None:
    """Write the smallest tokenizer: the engine asks it for the id of padding and nothing else."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)


def main() -> None:
    """Trace what `work.json` says."""
    from omegaconf import OmegaConf

    folder = Path(sys.argv[1])
    work = Work(**json.loads((folder / "work.json").read_text()))
    config = OmegaConf.load(folder / "config.yaml")
    _prepare(work, bool(config.relift.speed_patches))
    _write_tokenizer(folder / "model")
    from .step import trace_step

    (folder / "result.json").write_text(json.dumps(trace_step(config, work)))


if __name__ == "__main__":
    main()
