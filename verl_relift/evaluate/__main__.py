"""Evaluate a model on parquet files: vLLM answers, the grader judges, accuracies come with confidence intervals.

    python -m verl_relift.evaluate --model DIR --data FILE.parquet ... --output DIR [--n N] [--protocol relift]
    python -m verl_relift.evaluate --compare BEFORE AFTER

Writes summary.json and generations.jsonl to --output and prints a table. After an interruption, the same command
generates only the missing responses. docs/evaluate.md describes every number.
"""

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..rewards import Convention, GradingRules, Thinking
from ..run.display import visible
from ..run.environment import keep_kernels
from ..usage import argument_parser
from . import protocol
from .compare import compare, comparison_table
from .engine import QUIET
from .errors import EvaluationError
from .own_reward import OwnReward
from .protocol import Sampling
from .questions import EvaluationQuestion, read_questions

_INTERRUPTED = 130  # the exit status after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: command-line arguments; None reads `sys.argv`.

    Raises:
        SystemExit: with status 2, after one line on stderr, if an argument, the model or the data is invalid; with 130
            after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.model or not options.compare:
            _evaluate(options)
        if options.compare:
            _compare(options)
    except EvaluationError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("evaluate: interrupted; the same command generates the missing responses", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def _evaluate(options: argparse.Namespace) -> None:
    keep_kernels()
    if not options.verbose:
        for variable, value in QUIET.items():
            os.environ.setdefault(variable, value)
    import torch

    from ..run import leftovers, toolkit
    from .run import Job, evaluate
    from .summary import table
    from .tokens import inspect_model

    for name in ("model", "data", "output"):
        if not getattr(options, name):
            raise EvaluationError(f"--{name} is required")
    rules, reward = _grading(options)
    template = _values("--chat-template-kwargs", options.chat_template_kwargs)
    if not torch.cuda.is_available():
        for problem in toolkit.cpu_problems():
            raise EvaluationError(problem)
    questions, files = read_questions(options.data, mathematics=reward is None)
    job = Job(
        model=inspect_model(options.model),
        questions=questions,
        files=files,
        sampling=_sampling(options, questions),
        rules=rules,
        output=options.output,
        protocol=options.protocol,
        dtype=options.dtype,
        replicas=options.replicas,
        tensor_parallel=options.tensor_parallel,
        max_num_seqs=options.max_num_seqs,
        verbose=options.verbose,
        reward=reward,
        template=template,
    )
    leftovers.remove()
    with leftovers.temporary_files():
        summary = evaluate(job)
    print(visible(table(summary)))


def _grading(options: argparse.Namespace) -> tuple[GradingRules, OwnReward | None]:
    """Return the grader's rules, and the reward function that takes its place, if one is named."""
    usual = GradingRules()
    rules = GradingRules(options.thinking or usual.thinking, options.conventions or usual.conventions)
    if options.reward_function is None:
        for flag, value in (("reward-kwargs", options.reward_kwargs), ("correct-from", options.correct_from)):
            if value not in (None, []):
                raise EvaluationError(f"--{flag} has no effect without --reward-function; name the function, too")
        return rules, None
    for flag in ("thinking", "conventions"):
        if getattr(options, flag) is not None:
            raise EvaluationError(f"--{flag} has no effect with --reward-function, which decides alone; leave it out")
    if options.correct_from is not None and not math.isfinite(options.correct_from):
        raise EvaluationError(f"--correct-from {options.correct_from} must be finite")
    kwargs = _values("--reward-kwargs", options.reward_kwargs)
    return rules, OwnReward.load(options.reward_function, kwargs, options.correct_from)


def _values(flag: str, assignments: Sequence[str]) -> dict[str, Any]:
    """Return KEY=VALUE arguments as a dict; a value is read as on the command line of training."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for assignment in assignments:
        if not assignment.partition("=")[0].isidentifier() or "=" not in assignment:
            raise EvaluationError(f"{flag} {assignment}: expected KEY=VALUE")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist(list(assignments)), resolve=False)
    except (OmegaConfBaseException, YAMLError) as error:
        raise EvaluationError(f"{flag}: {str(error).splitlines()[0]}; correct the value") from error


def _compare(options: argparse.Namespace) -> None:
    folders = [*options.compare, *([options.output] if options.output else [])]
    if len(folders) != 2:
        raise EvaluationError("--compare takes two evaluation folders, or one if --output is given")
    before, after = folders
    print("\n" + visible(comparison_table(compare(before, after), _label(before), _label(after))))


def _sampling(options: argparse.Namespace, questions: Sequence[EvaluationQuestion]) -> Sampling:
    """Return the requested sampling. A protocol fills in what no flag sets."""
    sources = list(dict.fromkeys(question.source for question in questions))
    n, n_of = protocol.parse_n(options.n, sources)
    if options.protocol and n is None:
        n_of = {source: _protocol_samples(source, questions) for source in sources} | n_of
        others = [source for source in sources if protocol.relift_benchmark(source) is None]
        if others:
            print(f"not benchmarks of the paper, so not in its average: {', '.join(others)}", file=sys.stderr)
    return Sampling(n or 1, n_of, options.temperature, options.top_p, options.max_tokens, options.seed)


def _protocol_samples(source: str, questions: Sequence[EvaluationQuestion]) -> int:
    """Return the protocol's samples of each row: a question that the file repeats has its samples in all its rows."""
    copies = Counter((str(one.messages), repr(one.ground_truth)) for one in questions if one.source == source)
    wanted, fewest = protocol.relift_samples(source), min(copies.values())
    if fewest > 1:
        print(f"{source}: each question is there {fewest} times, which counts as {fewest} samples", file=sys.stderr)
    return -(-wanted // fewest)


def _label(folder: Path) -> str:
    return folder.resolve().name


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser("verl_relift.evaluate", __doc__, page="docs/evaluate.md")
    add = parser.add_argument
    add("--model", type=Path, help="Hugging Face folder: safetensors, tokenizer with chat template")
    add("--data", type=Path, nargs="+", default=[], help="parquet files in verl's schema; results per data_source")
    add("--output", type=Path, help="output folder; an evaluation found there is continued")
    add("--n", nargs="+", default=[], metavar="N", help="samples per row: NUMBER, or SOURCE=NUMBER for one source")
    add("--protocol", choices=["relift"], help="the paper's protocol: n=32 for AIME and AMC, n=1 elsewhere")
    add("--temperature", type=float, default=protocol.RELIFT_TEMPERATURE, help="default %(default)s; 0 is greedy")
    add("--top-p", type=float, default=protocol.RELIFT_TOP_P, help="default %(default)s")
    add("--max-tokens", type=int, default=protocol.RELIFT_MAX_TOKENS, help="response length limit; default %(default)s")
    add("--seed", type=int, default=0, help="default %(default)s")
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"], help="auto: float32 on a CPU")
    add("--replicas", type=int, help="number of vLLM engines; default: one per device (group)")
    add("--tensor-parallel", type=int, default=1, help="devices per replica; default %(default)s")
    add("--max-num-seqs", type=int, default=128, help="concurrent sequences per replica; default %(default)s")
    add(
        "--thinking",
        type=Thinking,
        choices=list(Thinking),
        help="whether a response must close its <think> block; default optional",
    )
    conventions = {"type": Convention, "nargs": "+", "choices": list(Convention)}
    add("--conventions", **conventions, help="answer markers to look for, in this order; default boxed hashes")
    own = "grade with your own function; pkg://MODULE is a file, too (docs/own-reward.md)"
    add("--reward-function", metavar="FILE[:NAME]", help=own)
    add("--reward-kwargs", nargs="+", default=[], metavar="KEY=VALUE", help="its keyword arguments")
    add("--correct-from", type=float, metavar="REWARD", help="least reward of a right answer, if it returns no acc")
    add("--chat-template-kwargs", nargs="+", default=[], metavar="KEY=VALUE", help="arguments of the chat template")
    add("--compare", type=Path, nargs="+", metavar="DIR", help="evaluation folder(s) to compare")
    add("--verbose", action="store_true", help="show vLLM's logs")
    return parser


if __name__ == "__main__":
    status = 0
    try:
        main()
    except SystemExit as end:
        if end.code != _INTERRUPTED:
            raise
        status = _INTERRUPTED
    # Everything is on disk. A regular exit after vLLM takes seconds and prints pages of leak warnings.
    sys.stdout.flush()
    os._exit(status)
