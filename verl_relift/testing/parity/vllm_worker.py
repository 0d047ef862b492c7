"""Let vLLM compute the batch's log-probs with many models, one after the other: `vllm_worker FOLDER OUTPUT`."""

import os
import sys
from pathlib import Path

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # one process for all

import torch
from vllm import LLM, SamplingParams

from .batch import make_batch


def log_probs(model: Path) -> list[torch.Tensor]:
    """Return the log-probs of every token but the first, for each sequence of the batch."""
    engine = LLM(
        str(model),
        dtype="float32",
        enforce_eager=True,
        max_model_len=64,
        max_num_seqs=8,
        gpu_memory_utilization=0.1,
        num_gpu_blocks_override=16,
        enable_prefix_caching=False,
        enable_chunked_prefill=False,
        max_num_batched_tokens=512,
    )
    sequences = [torch.cat(pair).tolist() for pair in zip(*make_batch(), strict=True)]
    prompts = [{"prompt_token_ids": sequence} for sequence in sequences]
    outputs = engine.generate(prompts, SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False)
    return [
        torch.tensor(
            [known[token].logprob for token, known in zip(sequence[1:], output.prompt_logprobs[1:], strict=True)]
        )
        for sequence, output in zip(sequences, outputs, strict=True)
    ]


def main() -> None:
    """Run the command line."""
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    torch.save({model.name: log_probs(model) for model in sorted(folder.iterdir())}, output)


if __name__ == "__main__":
    main()
