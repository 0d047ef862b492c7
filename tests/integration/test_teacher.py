"""The teacher against a real vLLM server on loopback, whose model knows the hardest level of the arithmetic task."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pyarrow.parquet as pq
import pytest
import torch

from data_preprocess.arithmetic import SHAPES, enumerate_shape, make_split
from verl_relift.demonstrations.teacher import Failure, Teacher, TeacherQuestion
from verl_relift.quickstart.base_model import build_model, build_tokenizer, pretrain
from verl_relift.rewards import grade
from verl_relift.rewards.function import RewardFunction
from verl_relift.settings import TeacherSettings
from verl_relift.testing.launch import finish, kill, records, wait_until
from verl_relift.testing.launch import start as start_training

pytest.importorskip("vllm", reason="vLLM is not installed")

MODEL = "arithmetic-teacher"
STEPS = 300  # of supervised training on the hardest level; greedy decoding then solves about 3 of 4 held-out problems
QUESTIONS = 32
STARTUP_LIMIT = 400.0  # seconds
CONTEXT = 128  # tokens

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCHDYNAMO_DISABLE": "1",
}


@pytest.fixture(scope="module")
def held_out():
    """Hardest problems that the served model was not trained on."""
    return [question for question in make_split().test if question.level == "hardest"]


@pytest.fixture(scope="module")
def model(held_out, tmp_path_factory):
    """Train a model on the other problems of the hardest level."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    unseen = {question.expression for question in held_out}
    pairs = [
        (
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question.text}], add_generation_prompt=True, return_dict=False
            ),
            [*tokenizer.encode(question.solution, add_special_tokens=False), tokenizer.eos_token_id],
        )
        for question in enumerate_shape("hardest", SHAPES["hardest"][0])
        if question.expression not in unseen
    ]
    model = build_model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, seed=0)
    pretrain(model, pairs, tokenizer.pad_token_id, seed=0, steps=STEPS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.set_num_threads(threads)
    return folder


class Server:
    """vLLM's OpenAI server in its own process."""

    def __init__(self, model, log):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
        command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", port, "--dtype", "float32"]
        command += ["--enforce-eager", "--max-model-len", CONTEXT, "--max-num-seqs", 32, "--block-size", 128]
        command += ["--num-gpu-blocks-override", 64, "--generation-config", "vllm"]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**ENVIRONMENT, **os.environ},
            )

    def wait_until_ready(self):
        end = time.monotonic() + STARTUP_LIMIT
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.base_url}/models", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise AssertionError(f"vLLM did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def signal(self, number):
        """Send a signal to the server and to the engine process that it started."""
        os.killpg(self.process.pid, number)

    def end(self):
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    server = Server(model, tmp_path_factory.mktemp("server") / "log")
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.end()


@pytest.fixture
def start(server, tmp_path):
    teachers = []

    def start(cache_dir=tmp_path, **values):
        values = {"max_tokens": 64, "samples": 4, "concurrency": 16, "timeout": 120.0, "max_retries": 1, **values}
        settings = TeacherSettings(**{"base_url": server.base_url, "model": MODEL, **values})
        teachers.append(Teacher(settings, cache_dir, RewardFunction()))
        return teachers[-1]

    yield start
    for teacher in teachers:
        teacher.close()


def asked(question, ground_truth=None):
    messages = ({"role": "user", "content": question.text},)
    return TeacherQuestion(question.expression, messages, ground_truth or question.answer, (), 1)


def answers(teacher, questions, limit=300.0):
    """Ask and collect; each call that the trainer would make must return at once."""
    collected, longest = [], 0.0
    end = time.monotonic() + limit
    for question in questions:
        assert teacher.ask(question)
    while len(collected) < len(questions):
        assert time.monotonic() < end, f"{len(collected)} of {len(questions)} answers after {limit:g} s"
        began = time.monotonic()
        collected += teacher.collect()
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.02)
    assert longest < 1.0
    return collected


def test_a_teacher_that_knows_the_hardest_level(start, held_out):
    questions = [asked(question) for question in held_out[:QUESTIONS]]
    first = start()
    results = answers(first, questions)
    verified = [result for result in results if result.failure is None]
    print(f"{len(verified)} of {QUESTIONS} verified; {first.metrics()}")
    assert len(verified) > QUESTIONS * 0.6
    assert {result.failure for result in results} <= {None, Failure.WRONG, Failure.TRUNCATED}
    for result in verified:
        assert result.text.startswith("<think>") and "</think>\\boxed{" in result.text
        assert grade(result.text, result.question.ground_truth).correct
    metrics = first.metrics()
    assert metrics["requests"] < QUESTIONS * 4, "a question whose sample verifies gets no other"
    # A prompt has two special tokens and one token for each character.
    assert metrics["prompt_tokens"] >= metrics["requests"] * 8
    assert 0 < metrics["completion_tokens"] <= metrics["requests"] * 64
    assert metrics["unreported_tokens"] == 0

    second = start()
    again = answers(second, questions)
    assert {r.question.key: r.text for r in again} == {r.question.key: r.text for r in results}
    assert second.metrics()["requests"] == 0 and second.metrics()["completion_tokens"] == 0


def test_usage_is_what_the_server_counts(start, held_out):
    teacher = start(samples=1, temperature=0.0)
    question = held_out[0]
    (result,) = answers(teacher, [asked(question)])
    with urllib.request.urlopen(
        urllib.request.Request(
            f"{teacher._settings.base_url}/chat/completions",
            json.dumps(
                {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": question.text}],
                    "temperature": 0.0,
                    "max_tokens": 64,
                }
            ).encode(),
            {"Content-Type": "application/json"},
        )
    ) as response:
        reply = json.load(response)
    assert teacher.metrics()["prompt_tokens"] == reply["usage"]["prompt_tokens"]
    assert teacher.metrics()["completion_tokens"] == reply["usage"]["completion_tokens"]
    assert result.text in (None, reply["choices"][0]["message"]["content"])


def test_wrong_truncated_and_refused(start, held_out):
    wrong = [asked(question, str(int(question.answer) + 1)) for question in held_out[:4]]
    assert Failure.WRONG in {result.failure for result in answers(start(), wrong)}
    right = [asked(question) for question in held_out[:4]]
    assert {result.failure for result in answers(start(max_tokens=4), right)} == {Failure.TRUNCATED}
    assert {result.failure for result in answers(start(model="another"), right)} == {Failure.REFUSED}
    assert {result.failure for result in answers(start(max_tokens=CONTEXT + 1), right)} == {Failure.REFUSED}


@pytest.mark.slow
def test_training_on_a_teachers_solutions(server, tmp_path):
    """Train on data without solutions. Training does not wait for the server, is killed, and resumes."""
    data, base, run = tmp_path / "data", tmp_path / "base", tmp_path / "run"
    for arguments in (
        ["data_preprocess.arithmetic", "--output", data, "--train-size", "256", "--eval-size", "8"],
        ["verl_relift.quickstart.base_model", "--data", data, "--output", base, "--steps", "150"],
    ):
        subprocess.run([sys.executable, "-m", *map(str, arguments)], check=True, capture_output=True)
    pq.write_table(pq.read_table(data / "train.parquet").drop_columns(["target"]), data / "train.parquet")
    overrides = (
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/test.parquet",
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        f"actor_rollout_ref.model.path={base}",
        "method.demonstrations.source=teacher",
        f"method.teacher.base_url={server.base_url}",
        f"method.teacher.model={MODEL}",
        "method.sft.batch_size=4",
        "trainer.resume_mode=auto",
        "trainer.save_freq=1",
    )
    process = start_training("quickstart", run, *overrides, "trainer.total_training_steps=1000")
    try:
        server.signal(signal.SIGSTOP)
        wait_until(lambda: len(records(run)) >= 4, process, run)
        still = records(run)[-1]
        assert still["relift/teacher/asked"] > 0 == still["relift/teacher/answered"] == still["relift/sft_updates"]
        server.signal(signal.SIGCONT)
        wait_until(lambda: records(run)[-1]["relift/sft_updates"] >= 2, process, run)
    finally:
        server.signal(signal.SIGCONT)
        kill(process)
    killed = records(run)[-1]
    steps = killed["step"] + 4
    again = finish(start_training("quickstart", run, *overrides, f"trainer.total_training_steps={steps}"), run)
    assert [record["step"] for record in again] == list(range(1, steps + 1))
    last = again[-1]
    assert last["relift/teacher/verified"] >= last["relift/demonstrations_accepted"] >= killed["relift/sft_updates"] * 4
    assert last["relift/teacher/asked"] >= killed["relift/teacher/asked"]
    assert last["relift/demonstrations_used"] >= killed["relift/demonstrations_used"] >= 8


def test_a_server_that_hangs_and_then_dies(start, server, held_out):
    """Runs last, because the server is gone afterwards."""
    questions = [asked(question) for question in held_out[-8:]]
    teacher = start(timeout=2.0, max_retries=1)
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    for question in questions:
        assert teacher.ask(question)
    assert time.monotonic() - began < 1.0 and teacher.collect() == []
    stalled = []
    while len(stalled) < len(questions):
        stalled += teacher.collect()
        time.sleep(0.02)
    assert {result.failure for result in stalled} == {Failure.UNREACHABLE}
    server.signal(signal.SIGCONT)
    patient = start(timeout=120.0)
    assert Failure.UNREACHABLE not in {result.failure for result in answers(patient, questions)}

    busy = start(cache_dir=server.log.parent / "another", max_retries=1)
    for question in map(asked, held_out[:64]):
        assert busy.ask(question)
    time.sleep(0.2)
    server.end()
    rest = []
    while len(rest) < 64:
        rest += busy.collect()
        time.sleep(0.02)
    assert Failure.UNREACHABLE in {result.failure for result in rest}
    assert {result.failure for result in rest} <= {None, Failure.WRONG, Failure.TRUNCATED, Failure.UNREACHABLE}
