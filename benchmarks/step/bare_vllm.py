"""Answers prompts with `vllm.LLM` alone: reads a JSON request per line of stdin and writes an answer per line."""

import json
import os
import sys
import time


def main() -> None:
    """Run the command.

    Its argument is JSON with the arguments of `vllm.LLM`. A request has `prompts` (token ids), `seeds` and `sampling`;
    an answer has `seconds` and `tokens`.
    """
    # Everything that libraries print goes to stderr.
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(**json.loads(sys.argv[1]), disable_log_stats=True)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        sampling = [SamplingParams(seed=seed, detokenize=False, **request["sampling"]) for seed in request["seeds"]]
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in request["prompts"]]
        started = time.perf_counter()
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        answer = {"seconds": time.perf_counter() - started}
        answer["tokens"] = sum(len(choice.token_ids) for output in outputs for choice in output.outputs)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
