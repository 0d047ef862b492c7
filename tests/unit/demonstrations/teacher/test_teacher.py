"""The teacher against a real HTTP server that is good, slow, dying, refusing, or wrong."""

import email.utils
import json
import logging
import socket
import threading
import time

import pytest

from tests.unit.demonstrations.teacher.teacher_server import serving
from verl_relift.demonstrations.teacher import Failure, Teacher, TeacherQuestion, circuit_breaker
from verl_relift.rewards.function import RewardFunction
from verl_relift.settings import SettingsError, TeacherSettings

RIGHT = "<think>2+2=4</think>\\boxed{4}"
WRONG = "\\boxed{5}"
REWARD = RewardFunction()


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Make backoff and cooldown a fiftieth as long."""
    monkeypatch.setattr(circuit_breaker, "FIRST_BACKOFF", 0.02)
    monkeypatch.setattr(circuit_breaker, "FIRST_COOLDOWN", 0.04)
    monkeypatch.setattr(circuit_breaker, "LONGEST_COOLDOWN", 0.2)


@pytest.fixture
def start(tmp_path):
    """Start teachers and close them at the end."""
    teachers = []

    def start(base_url, cache_dir=tmp_path, reward=REWARD, **values):
        values = {"max_tokens": 100, "samples": 1, "timeout": 30.0, "max_retries": 2, **values}
        teachers.append(Teacher(TeacherSettings(base_url=base_url, model="m", **values), cache_dir, reward))
        return teachers[-1]

    yield start
    for teacher in teachers:
        teacher.close()


def question(key="q", ground_truth="4", step=1):
    return TeacherQuestion(key, ({"role": "user", "content": f"{key}: 2+2=?"},), ground_truth, (1, 2), step)


def answers(teacher, count, limit=60.0):
    """Return the next `count` answers."""
    collected = []
    end = time.monotonic() + limit
    while len(collected) < count:
        assert time.monotonic() < end, f"{len(collected)} of {count} answers after {limit} s"
        collected += teacher.collect()
        time.sleep(0.005)
    assert len(collected) == count
    return collected


def answer(teacher, **values):
    assert teacher.ask(question(**values))
    return answers(teacher, 1)[0]


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# ---- what is asked ---------------------------------------------------------------------------------------------------


def test_an_answer_that_verifies(start):
    with serving(lambda request: request.answer(RIGHT)) as server:
        teacher = start(server.base_url, temperature=0.5, top_p=0.8)
        asked = question()
        assert teacher.ask(asked)
        assert not teacher.ask(asked), "the question already waits"
        (result,) = answers(teacher, 1)
        assert (result.question, result.text, result.failure) == (asked, RIGHT, None)
        assert teacher.collect() == [] and teacher.waiting == 0
        assert server.requests[0].body == {
            "model": "m",
            "messages": [{"role": "user", "content": "q: 2+2=?"}],
            "temperature": 0.5,
            "top_p": 0.8,
            "max_tokens": 100,
        }
        metrics = teacher.metrics()
        assert (metrics["asked"], metrics["answered"], metrics["verified"]) == (1, 1, 1)
        assert (metrics["prompt_tokens"], metrics["completion_tokens"]) == (10, 20)
        assert 0 < metrics["latency"] < 30
        assert all(type(value) is float for value in metrics.values())


def test_the_system_prompt_replaces_the_questions_own(start):
    with serving(lambda request: request.answer(RIGHT)) as server:
        teacher = start(server.base_url, system_prompt="Think.")
        messages = ({"role": "system", "content": "Hurry."}, {"role": "user", "content": "2+2=?"})
        teacher.ask(TeacherQuestion("q", messages, "4", (), 1))
        answers(teacher, 1)
        assert server.requests[0].body["messages"] == [
            {"role": "system", "content": "Think."},
            {"role": "user", "content": "2+2=?"},
        ]


def test_the_key_comes_only_from_the_named_variable(start, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    monkeypatch.setenv("TEACHER_KEY", "sk-secret")
    with serving(lambda request: request.answer(RIGHT)) as server:
        answer(start(server.base_url, api_key_env="TEACHER_KEY"), key="a")
        answer(start(server.base_url), key="b")
    assert server.requests[0].headers["authorization"] == "Bearer sk-secret"
    assert "authorization" not in server.requests[1].headers
    assert not any("sk-" in value for value in server.requests[1].headers.values())


def test_the_key_is_neither_logged_nor_stored(start, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("TEACHER_KEY", "sk-secret")

    def respond(request):
        if request.number == 0:
            request.error(401, f"no such key: {request.headers['authorization']}\nFORGED LINE")
        else:
            request.answer(RIGHT)

    with serving(respond) as server:
        teacher = start(server.base_url, api_key_env="TEACHER_KEY")
        assert answer(teacher, key="a").failure is Failure.REFUSED
        assert answer(teacher, key="b").text == RIGHT
        stored = json.dumps(teacher.state_dict())
    assert "status 401" in caplog.text and "no such key: Bearer ***" in caplog.text
    assert "\nFORGED" not in caplog.text
    assert "sk-secret" not in caplog.text + stored + repr(teacher.metrics())
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base_url": "127.0.0.1:8000"}, "base_url=127.0.0.1:8000"),
        ({"base_url": "file:///etc/passwd"}, "base_url=file"),
        ({"base_url": None}, "base_url=None"),
        ({"base_url": "http://127.0.0.1:1/v1", "api_key_env": "NOT_SET"}, "api_key_env=NOT_SET"),
    ],
)
def test_invalid_settings(start, values, message):
    with pytest.raises(SettingsError, match=message):
        start(**values)


def test_a_cache_folder_that_cannot_be_made(start, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cache_dir"):
        start("http://127.0.0.1:1/v1", cache_dir=tmp_path / "file" / "cache")


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_samples_are_asked_until_one_verifies(start):
    texts = [WRONG, "no box", RIGHT, "never asked"]
    with serving(lambda request: request.answer(texts[request.number])) as server:
        teacher = start(server.base_url, samples=4)
        assert answer(teacher).text == RIGHT
        assert len(server.requests) == 3


def test_no_sample_verifies(start):
    with serving(lambda request: request.answer(WRONG)) as server:
        teacher = start(server.base_url, samples=3)
        result = answer(teacher)
        assert (result.text, result.failure) == (None, Failure.WRONG)
        assert len(server.requests) == 3
        assert not teacher.ask(question()), "given up"
        assert teacher.metrics()["failed/wrong"] == 1


def test_greedy_sampling_requests_one_sample(start):
    with serving(lambda request: request.answer(WRONG)) as server:
        answer(start(server.base_url, samples=3, temperature=0.0))
        assert len(server.requests) == 1


def test_a_truncated_solution_is_not_used_even_if_its_answer_is_correct(start):
    with serving(lambda request: request.answer(RIGHT, finish_reason="length")) as server:
        teacher = start(server.base_url, samples=2)
        assert answer(teacher).failure is Failure.TRUNCATED
        assert len(server.requests) == 2
        assert not teacher.ask(question())


def test_the_most_common_failure_is_reported(start):
    reasons = ["stop", "length", "length"]
    with serving(lambda request: request.answer(WRONG, finish_reason=reasons[request.number])) as server:
        assert answer(start(server.base_url, samples=3)).failure is Failure.TRUNCATED


def test_a_ground_truth_that_cannot_be_read(start):
    with serving(lambda request: request.answer(WRONG)) as server:
        assert answer(start(server.base_url), ground_truth="").failure is Failure.UNVERIFIABLE


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_separate_reasoning_is_put_before_the_content(start, field):
    with serving(lambda request: request.answer("\n\\boxed{4}", **{field: "2+2=4\n"})) as server:
        assert answer(start(server.base_url)).text == "<think>\n2+2=4\n</think>\n\\boxed{4}"


@pytest.mark.parametrize(("content", "reasoning"), [(RIGHT, "2+2=4"), (RIGHT, ""), (RIGHT, None), (RIGHT, 7)])
def test_content_with_its_own_thought_is_unchanged(start, content, reasoning):
    with serving(lambda request: request.answer(content, reasoning_content=reasoning)) as server:
        assert answer(start(server.base_url)).text == content


# ---- servers that answer wrongly -------------------------------------------------------------------------------------

GARBAGE = {
    "no JSON": b"<html>502 Bad Gateway</html>",
    "half of a JSON text": b'{"choices": [{"message": {"con',
    "nothing": b"",
    "bytes that are not text": bytes(range(256)),
    "a list": b"[]",
    "null": b"null",
    "no choices": b'{"choices": []}',
    "choices of the wrong type": b'{"choices": {"0": 1}}',
    "no message": b'{"choices": [{"text": "\\\\boxed{4}"}]}',
    "no content": b'{"choices": [{"message": {"role": "assistant"}}]}',
    "content of the wrong type": b'{"choices": [{"message": {"content": ["\\\\boxed{4}"]}}]}',
    "an error with status 200": b'{"error": {"message": "overloaded"}}',
    "deep nesting": b"[" * 100_000,
    "a number without end": b'{"choices": ' + b"1" * 10_000 + b"}",
    "10 MB of text": b'{"choices": [{"message": {"content": "\\\\boxed{4}' + b" " * 10_000_000 + b'"}}]}',
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_retried(start, body):
    with serving(lambda request: request.raw(body) if request.number == 0 else request.answer(RIGHT)) as server:
        teacher = start(server.base_url)
        assert answer(teacher).text == RIGHT
        assert len(server.requests) == 2


def test_nothing_but_garbage(start, caplog):
    with serving(lambda request: request.raw(b"{}")) as server:
        teacher = start(server.base_url)
        assert answer(teacher).failure is Failure.MALFORMED
        assert len(server.requests) == 3
        assert "a reply that is not a chat completion" in caplog.text
        assert teacher.ask(question()), "not given up"


@pytest.mark.parametrize("text", ["", None, "   ", "\x00" * 1000, "\\boxed{" * 10_000, "\\boxed{9^{9^{9^{9^{9}}}}}"])
def test_nonsensical_answers(start, text):
    with serving(lambda request: request.answer(text)) as server:
        assert answer(start(server.base_url)).failure in (Failure.WRONG, Failure.UNVERIFIABLE)


def test_a_correct_answer_of_a_million_bytes_counts(start):
    text = "x" * 1_000_000 + RIGHT
    with serving(lambda request: request.answer(text)) as server:
        assert answer(start(server.base_url)).text == text


def test_half_a_surrogate_pair_becomes_text(start):
    with serving(lambda request: request.answer("\ud800" + RIGHT)) as server:
        teacher = start(server.base_url)
        assert answer(teacher).text == "?" + RIGHT


@pytest.mark.parametrize(
    "usage", [None, [], {}, {"prompt_tokens": -1, "completion_tokens": 5}, {"prompt_tokens": "1"}, {"prompt_tokens": 1}]
)
def test_without_usage_a_request_costs_its_maximum(start, usage):
    reply = {"choices": [{"message": {"content": RIGHT}}], "usage": usage}
    with serving(lambda request: request.json(reply)) as server:
        teacher = start(server.base_url, price_input=1.0, price_output=2.0)
        assert answer(teacher).text == RIGHT
        metrics = teacher.metrics()
        prompt = 64 + 16 + len("q: 2+2=?")
        assert metrics["unreported_tokens"] == prompt + 100
        assert metrics["prompt_tokens"] == metrics["completion_tokens"] == 0
        assert metrics["cost"] == pytest.approx((prompt + 200) / 1e6)


# ---- servers that refuse, fail, die ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_temporary_status_is_retried_and_costs_nothing(start, status):
    with serving(lambda request: request.error(status) if request.number < 2 else request.answer(RIGHT)) as server:
        teacher = start(server.base_url)
        assert answer(teacher).text == RIGHT
        assert len(server.requests) == 3
        assert teacher.metrics()["unreported_tokens"] == 0
        first, second, third = server.times
        assert second - first > 0.01 and third - second > 0.02, "backs off, longer each time"


def test_a_permanent_status(start, caplog):
    with serving(lambda request: request.error(500, "out of memory")) as server:
        teacher = start(server.base_url)
        assert answer(teacher).failure is Failure.UNREACHABLE
        assert len(server.requests) == 3
        assert f"127.0.0.1:{server.server_port}: unreachable: status 500" in caplog.text
        assert "out of memory" in caplog.text


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 422])
def test_a_refusal_is_not_retried_but_the_question_may_be_asked_again(start, status):
    with serving(lambda request: request.error(status, Location="http://127.0.0.1:1/")) as server:
        teacher = start(server.base_url)
        assert answer(teacher).failure is Failure.REFUSED
        assert len(server.requests) == 1
        assert teacher.ask(question())


def test_an_exhausted_account_is_a_refusal(start):
    with serving(lambda request: request.error(429, code="insufficient_quota")) as server:
        assert answer(start(server.base_url)).failure is Failure.REFUSED
        assert len(server.requests) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_respected(start, form):
    def respond(request):
        if request.number == 0:
            at = time.time() + 2.0
            request.error(429, Retry_After="1" if form == "seconds" else email.utils.formatdate(at, usegmt=True))
        else:
            request.answer(RIGHT)

    with serving(respond) as server:
        teacher = start(server.base_url, concurrency=1)
        for key in "ab":
            teacher.ask(question(key))
        assert [result.text for result in answers(teacher, 2)] == [RIGHT, RIGHT]
        assert server.times[1] - server.times[0] > (0.99 if form == "seconds" else 0.9), "nobody asks in the pause"


def test_a_pause_of_an_hour_is_not_waited_for(start):
    with serving(lambda request: request.error(503, Retry_After="3600")) as server:
        teacher = start(server.base_url)
        assert answer(teacher).failure is Failure.UNREACHABLE
        assert answer(teacher, key="other").failure is Failure.UNREACHABLE
        assert len(server.requests) == 1


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "Mon, 99 Foo"])
def test_a_nonsensical_retry_after_is_ignored(start, value):
    def respond(request):
        request.error(429, Retry_After=value) if request.number == 0 else request.answer(RIGHT)

    with serving(respond) as server:
        assert answer(start(server.base_url)).text == RIGHT


def test_a_server_that_dies_in_the_middle(start):
    def respond(request):
        if request.number == 0:
            request.die()
        elif request.number == 1:
            request.raw(b'{"choices": [', length=5000)
        else:
            request.answer(RIGHT)

    with serving(respond) as server:
        teacher = start(server.base_url)
        assert answer(teacher).text == RIGHT
        assert len(server.requests) == 3
        metrics = teacher.metrics()
        assert metrics["unreported_tokens"] == 2 * (64 + 16 + 8 + 100), "what was lost may have been paid"


def test_a_slow_server_is_given_up_after_the_timeout(start):
    release = threading.Event()

    def respond(request):
        release.wait(20)

    with serving(respond) as server:
        teacher = start(server.base_url, timeout=1.0, max_retries=1)
        assert answer(teacher).failure is Failure.UNREACHABLE
        assert len(server.requests) == 2
        release.set()


def test_a_trickling_server_is_given_up_too(start):
    def respond(request):
        request.handler.send_response(200)
        request.handler.send_header("Content-Length", "1000")
        request.handler.end_headers()
        for _ in range(100):
            request.handler.wfile.write(b" ")
            time.sleep(0.05)

    with serving(respond) as server:
        began = time.monotonic()
        assert answer(start(server.base_url, timeout=0.5, max_retries=0)).failure is Failure.UNREACHABLE
        assert time.monotonic() - began < 4.0


def test_a_server_that_starts_late(start):
    port = closed_port()
    teacher = start(f"http://127.0.0.1:{port}/v1")
    assert answer(teacher).failure is Failure.UNREACHABLE
    assert teacher.metrics()["unreported_tokens"] == 0, "nothing was sent"
    with serving(lambda request: request.answer(RIGHT), port):
        assert answer(teacher).text == RIGHT


def test_a_dead_server_is_not_hammered_and_its_return_is_noticed(start, caplog):
    dead = threading.Event()
    dead.set()
    with serving(lambda request: request.error(500) if dead.is_set() else request.answer(RIGHT)) as server:
        teacher = start(server.base_url, concurrency=4, max_retries=3)
        for i in range(50):
            assert teacher.ask(question(str(i)))
        assert {result.failure for result in answers(teacher, 50)} == {Failure.UNREACHABLE}
        # 200 tries: five failures open the circuit breaker, up to concurrency - 1 more are in flight, then probes
        # follow
        assert len(server.requests) < 30
        assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1, "one line for all failures"
        dead.clear()
        time.sleep(circuit_breaker.LONGEST_COOLDOWN)
        assert answer(teacher).text == RIGHT
        for i in range(50):
            teacher.ask(question(str(i)))
        assert {result.text for result in answers(teacher, 50)} == {RIGHT}


def test_a_wrong_key_is_not_hammered(start):
    with serving(lambda request: request.error(401)) as server:
        teacher = start(server.base_url, concurrency=1)
        for i in range(50):
            teacher.ask(question(str(i)))
        assert {result.failure for result in answers(teacher, 50)} == {Failure.REFUSED}
        assert len(server.requests) < 20


# ---- concurrency with training ---------------------------------------------------------------------------------------


def test_no_call_waits_for_a_slow_server(start):
    delay = 1.5

    def respond(request):
        time.sleep(delay)
        request.answer(RIGHT)

    with serving(respond) as server:
        teacher = start(server.base_url, concurrency=8)
        longest = 0.0

        def timed(call):
            nonlocal longest
            began = time.monotonic()
            result = call()
            longest = max(longest, time.monotonic() - began)
            return result

        collected, steps = [], 0
        for i in range(24):
            assert timed(lambda i=i: teacher.ask(question(str(i))))
        while len(collected) < 24:
            sum(range(50_000))  # simulates the work of a training step
            collected += timed(teacher.collect)
            timed(teacher.metrics)
            timed(teacher.state_dict)
            steps += 1
        assert server.most_in_flight == 8, "as many as allowed, and no more"
        assert steps > 100
        assert longest < delay / 3, f"a call took {longest:.2f} s"
        assert {result.question.key for result in collected} == {str(i) for i in range(24)}


def test_answers_come_in_the_order_of_asking(start):
    def respond(request):
        time.sleep(0.2 if request.question.startswith("0") else 0.0)
        request.answer(RIGHT)

    with serving(respond) as server:
        teacher = start(server.base_url)
        for i in range(5):
            teacher.ask(question(str(i)))
        while teacher.waiting:
            time.sleep(0.01)
        assert [result.question.key for result in teacher.collect()] == list("01234")


def test_too_many_questions_are_refused(start):
    release = threading.Event()

    def respond(request):
        release.wait(20)
        request.answer(RIGHT)

    with serving(respond) as server:
        teacher = start(server.base_url, max_waiting=3)
        assert [teacher.ask(question(str(i))) for i in range(5)] == [True, True, True, False, False]
        assert teacher.waiting == 3
        release.set()
        answers(teacher, 3)
        assert teacher.ask(question("4"))


def test_close_cancels_what_is_in_flight(start):
    release = threading.Event()
    with serving(lambda request: release.wait(20)) as server:
        teacher = start(server.base_url, concurrency=20)
        for i in range(40):
            teacher.ask(question(str(i)))
        while server.in_flight < 20:
            time.sleep(0.01)
        began = time.monotonic()
        teacher.close()
        assert time.monotonic() - began < 2.0
        assert not teacher._thread.is_alive()
        assert len(teacher.state_dict()["open"]) == 40
        assert not teacher.ask(question("late")) and teacher.collect() == []
        teacher.close()
        release.set()


def test_a_bug_in_the_teacher_is_not_hidden(start):
    with serving(lambda request: request.answer(RIGHT)) as server:
        teacher = start(server.base_url)
        teacher.ask(question(ground_truth={"not": "gradable"}))
        with pytest.raises(RuntimeError, match="thread failed") as raised:
            answers(teacher, 1)
        assert "raised TypeError: ground truth is a dict" in str(raised.value.__cause__)


# ---- stop and resume -------------------------------------------------------------------------------------------------


def test_state_of_questions_waiting_arrived_and_given_up(start, tmp_path):
    release = threading.Event()

    def respond(request):
        if request.question.startswith("slow"):
            release.wait(20)
        request.answer(WRONG if request.question.startswith("wrong") else RIGHT)

    with serving(respond) as server:
        first = start(server.base_url, price_output=1.0)
        assert answer(first, key="wrong").failure is Failure.WRONG
        assert answer(first, key="done").text == RIGHT
        assert first.ask(question("arrived", step=7))
        while first.waiting:
            time.sleep(0.01)
        assert first.ask(question("slow", step=8))
        state = json.loads(json.dumps(first.state_dict()))
        first.close()
        release.set()

        before = len(server.requests)
        second = start(server.base_url, price_output=1.0)
        second.load_state_dict(state)
        results = answers(second, 2)
        assert [result.question for result in results] == [question("arrived", step=7), question("slow", step=8)]
        assert [result.text for result in results] == [RIGHT, RIGHT]
        assert not second.ask(question("wrong")), "still given up"
        metrics = second.metrics()
        assert metrics["cache_hits"] == 1 and metrics["completion_tokens"] == 80, "what had arrived is not paid twice"
        assert metrics["cost"] == pytest.approx(80e-6)
        assert (metrics["asked"], metrics["answered"], metrics["verified"]) == (4, 4, 3)
        assert [r.question[:4] for r in server.requests[before:]] == ["slow"]

        third = start(server.base_url, samples=2)
        third.load_state_dict(state)
        answers(third, 2)
        assert third.ask(question("wrong")), "other settings, another chance"
        assert third.metrics()["completion_tokens"] == 60


def test_a_budget_covers_the_whole_run(start):
    with serving(lambda request: request.answer(RIGHT, completion_tokens=100)) as server:
        first = start(server.base_url, budget_tokens=400)
        answer(first, key="a")
        second = start(server.base_url, budget_tokens=400)
        second.load_state_dict(first.state_dict())
        answer(second, key="b")
        assert not second.ask(question("c"))
        assert second.metrics()["prompt_tokens"] + second.metrics()["completion_tokens"] == 220


# ---- budget ----------------------------------------------------------------------------------------------------------

MOST = 64 + 16 + len("00: 2+2=?") + 100  # tokens reserved for one sample


@pytest.mark.parametrize(
    "limit",
    [{"budget_tokens": 1000}, {"budget_cost": 1000e-6, "price_input": 1.0, "price_output": 1.0}],
    ids=["tokens", "cost"],
)
def test_the_budget_holds_whatever_the_concurrency(start, limit):
    """The server uses everything that was reserved, so requests in flight together must fit the budget."""

    def respond(request):
        time.sleep(0.05)
        request.answer(RIGHT, prompt_tokens=MOST - 100, completion_tokens=100)

    with serving(respond) as server:
        teacher = start(server.base_url, concurrency=32, **limit)
        asked = sum(teacher.ask(question(f"{i:02}")) for i in range(20))
        results = answers(teacher, asked)
        paid = 1000 // MOST
        assert sum(result.failure is None for result in results) == paid == len(server.requests)
        assert {result.failure for result in results} == {None, Failure.BUDGET}
        spent = teacher.metrics()
        assert spent["prompt_tokens"] + spent["completion_tokens"] == paid * MOST <= 1000
        assert not teacher.ask(question("20"))


def test_an_unused_reservation_is_spent_on_other_requests(start):
    with serving(lambda request: request.answer(RIGHT, prompt_tokens=5, completion_tokens=5)) as server:
        teacher = start(server.base_url, budget_tokens=MOST + 100, concurrency=32)
        asked = sum(teacher.ask(question(f"{i:02}")) for i in range(30))
        results = answers(teacher, asked)
        assert sum(result.failure is None for result in results) == 11
        assert teacher.metrics()["prompt_tokens"] + teacher.metrics()["completion_tokens"] == 110


def test_sampling_stops_when_the_budget_is_spent(start):
    with serving(lambda request: request.answer(WRONG, prompt_tokens=50, completion_tokens=100)) as server:
        teacher = start(server.base_url, budget_tokens=400, samples=10)
        assert answer(teacher).failure is Failure.BUDGET
        assert len(server.requests) == 2


# ---- cache -----------------------------------------------------------------------------------------------------------


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_cache_answers_for_the_same_question_and_settings_only(start, tmp_path):
    with serving(lambda request: request.answer(RIGHT)) as server:
        answer(start(server.base_url))
        (file,) = files(tmp_path)
        assert file.suffix == ".json"
        assert answer(start(server.base_url, concurrency=1)).text == RIGHT
        assert len(server.requests) == 1
        for changed in ({"temperature": 0.7}, {"top_p": 0.5}, {"max_tokens": 99}, {"system_prompt": "Think."}):
            answer(start(server.base_url, **changed))
        answer(start(server.base_url), key="another")
        assert len(server.requests) == 6 == len(files(tmp_path))


def test_the_cache_keeps_wrong_samples_too(start):
    texts = [WRONG, RIGHT]
    with serving(lambda request: request.answer(texts[request.number])) as server:
        assert answer(start(server.base_url, samples=1)).failure is Failure.WRONG
        teacher = start(server.base_url, samples=2)
        assert answer(teacher).text == RIGHT
        assert teacher.metrics()["cache_hits"] == 1
        assert len(server.requests) == 2


CORRUPT = [b"", b"{", b"[]", b"null", b'{"request": 1}', bytes(range(256)), b"[" * 100_000]


@pytest.mark.parametrize("content", CORRUPT, ids=range(len(CORRUPT)))
def test_a_corrupt_entry_is_a_miss_and_is_replaced(start, tmp_path, caplog, content):
    with serving(lambda request: request.answer(RIGHT)) as server:
        answer(start(server.base_url))
        (file,) = files(tmp_path)
        whole = file.read_bytes()
        file.write_bytes(content)
        assert answer(start(server.base_url)).text == RIGHT
        assert len(server.requests) == 2
        assert f"{file} cannot be read" in caplog.text
        assert file.read_bytes() == whole


def test_an_entry_of_another_question_is_not_used(start, tmp_path, caplog):
    with serving(lambda request: request.answer(RIGHT)) as server:
        answer(start(server.base_url), key="a")
        (first,) = files(tmp_path)
        answer(start(server.base_url), key="b")
        (second,) = set(files(tmp_path)) - {first}
        second.write_bytes(first.read_bytes())
        answer(start(server.base_url), key="b")
        assert len(server.requests) == 3 and "not the reply to this request" in caplog.text


def test_an_unwritable_cache_does_not_stop_the_teacher(start, tmp_path, caplog):
    with serving(lambda request: request.answer(RIGHT)) as server:
        teacher = start(server.base_url, cache_dir=tmp_path / "cache")
        (tmp_path / "cache").rmdir()
        (tmp_path / "cache").write_text("a file")
        assert answer(teacher).text == RIGHT
        assert "cannot be written" in caplog.text


def test_several_runs_share_a_cache(start, tmp_path):
    with serving(lambda request: request.answer(RIGHT)) as server:
        teachers = [start(server.base_url) for _ in range(3)]
        for teacher in teachers:
            for i in range(20):
                teacher.ask(question(str(i)))
        for teacher in teachers:
            assert {result.text for result in answers(teacher, 20)} == {RIGHT}
        assert len(files(tmp_path)) == 20
        assert all(json.loads(file.read_text())["text"] == RIGHT for file in files(tmp_path))
