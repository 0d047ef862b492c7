"""Ask an exported model questions: `python examples/inference/chat.py --model DIR QUESTION ...`"""

import argparse
import os
import sys

# A small KV cache for vLLM on a CPU (no effect on a GPU), no second process, which Ctrl-C would wait for, and no log in
# the answers.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from transformers import AutoTokenizer
from vllm import LLM, SamplingParams


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a Hugging Face folder, e.g. the output of verl_relift.export")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--system", help="a system prompt; the model should get the one that it was trained with")
    parser.add_argument("questions", nargs="+")
    arguments = parser.parse_args()

    print(f"loading {arguments.model} ...", file=sys.stderr)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    system = [{"role": "system", "content": arguments.system}] if arguments.system else []
    prompts = [
        # As token ids: in front of a text, vLLM would put a second beginning-of-sequence token.
        {
            "prompt_token_ids": tokenizer.apply_chat_template(
                [*system, {"role": "user", "content": question}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        }
        for question in arguments.questions
    ]
    on_gpu = torch.cuda.is_available()
    llm = LLM(arguments.model, dtype="auto" if on_gpu else "float32", enforce_eager=not on_gpu, max_model_len=512)
    print("answering ...", file=sys.stderr)
    outputs = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=arguments.max_tokens), use_tqdm=False)
    for question, output in zip(arguments.questions, outputs, strict=True):
        print(f"{question}\n{output.outputs[0].text.strip()}\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
