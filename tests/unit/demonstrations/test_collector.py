"""The life of a demonstration: chosen, obtained, verified, waiting, taken; without a trainer and without Ray."""

import json
import threading
from random import Random

import pytest

from tests.unit.methods.steps import TOKENIZER, question
from verl_relift.demonstrations import collector as collectors
from verl_relift.demonstrations.buffer import DemonstrationBuffer
from verl_relift.demonstrations.collector import Collector
from verl_relift.demonstrations.teacher import TeacherAnswer
from verl_relift.demonstrations.verify import OverlongDemonstration, Rejected
from verl_relift.rewards.function import RewardFunction
from verl_relift.settings import BufferSettings, DemonstrationSettings, Overlong, Source


class Teacher:
    """Stands in for a server: what is asked waits until the test answers."""

    def __init__(self):
        self.asked, self.answers = [], []

    def ask(self, asked):
        self.asked.append(asked)

    def collect(self):
        answers, self.answers = self.answers, []
        return answers

    def metrics(self):
        return {"asked": float(len(self.asked))}

    def state_dict(self):
        return {}


def make(source=Source.DATASET, teacher=None, buffer=None, **settings) -> Collector:
    encode = lambda asked: tuple(TOKENIZER.encode(asked.messages[0]["content"]))  # noqa: E731
    demonstrations = DemonstrationSettings(source=source, **settings)
    waiting = DemonstrationBuffer(buffer or BufferSettings())
    return Collector(demonstrations, waiting, TOKENIZER, encode, RewardFunction(), teacher, 10)


def collect(collector: Collector, chosen=(), solved=(), step=1) -> None:
    collector.collect(list(chosen), list(solved), step)
    collector.settle()


def waiting(collector: Collector) -> list[str]:
    return [item["question"] for item in collector.state_dict()["buffer"]["waiting"]]


def test_chosen_questions_wait_in_their_order():
    collector = make()
    collect(collector, [question(3), question(1), question(2, "wrong")])
    assert waiting(collector) == ["q3", "q1"]
    assert collector.accepted == 2 and collector.rejected == {Rejected.WRONG: 1}


def test_a_question_that_fails_again_keeps_its_turn_and_is_not_verified_again(monkeypatch):
    collector = make(buffer=BufferSettings(max_age_steps=2))
    collect(collector, [question(1), question(2)], step=1)
    seen = []
    original = collectors.make_demonstrations
    monkeypatch.setattr(collectors, "make_demonstrations", lambda s, *rest: seen.append(len(s)) or original(s, *rest))
    collect(collector, [question(1)], step=3)
    collect(collector, [question(3)], step=4)  # q2 failed three steps ago
    assert seen == [0, 1] and waiting(collector) == ["q1", "q3"]


def test_all_solutions_of_a_step_are_verified_in_one_batch_off_the_main_thread(monkeypatch):
    threads = []
    original = collectors.make_demonstrations

    def watched(solutions, *rest):
        threads.append((threading.current_thread() is threading.main_thread(), len(solutions)))
        return original(solutions, *rest)

    monkeypatch.setattr(collectors, "make_demonstrations", watched)
    collect(make(), [question(n) for n in range(20)])
    assert threads == [(False, 20)]


def test_collecting_returns_while_verification_runs(monkeypatch):
    gate = threading.Event()
    original = collectors.make_demonstrations
    monkeypatch.setattr(collectors, "make_demonstrations", lambda *a: gate.wait(10) and original(*a))
    collector = make()
    collector.collect([question(1)], [], 1)
    assert len(collector.buffer) == 0
    gate.set()
    collector.settle()
    assert waiting(collector) == ["q1"]


def test_a_question_drawn_twice_has_one_demonstration():
    collector = make()
    collect(collector, [question(1, draw="1-000000"), question(1, draw="1-000001")])
    assert waiting(collector) == ["q1"] and collector.accepted == 1
    collect(collector, [question(2, "wrong", draw="2-000000"), question(2, "wrong", draw="2-000001")], step=2)
    assert collector.rejected == {Rejected.WRONG: 2}


def test_a_question_evicted_while_its_turn_came_is_verified_again():
    collector = make(buffer=BufferSettings(capacity=1))
    collect(collector, [question(1)])
    collect(collector, [question(2), question(1)], step=2)
    assert waiting(collector) == ["q1"]


def test_solved_questions_leave_if_the_settings_say_so():
    collector = make(buffer=BufferSettings(drop_solved=True))
    collect(collector, [question(1), question(2)])
    collect(collector, solved=[question(1), question(9)], step=2)
    assert waiting(collector) == ["q2"]


def test_the_teacher_is_asked_where_the_data_set_has_none_that_verifies():
    teacher = Teacher()
    collector = make(Source.DATASET_THEN_TEACHER, teacher)
    collect(collector, [question(1), question(2, None), question(3, "wrong")])
    assert [asked.key for asked in teacher.asked] == ["q2", "q3"] and waiting(collector) == ["q1"]
    teacher.answers = [TeacherAnswer(teacher.asked[0], "\\boxed{2}", None)]
    collect(collector, step=2)
    assert waiting(collector) == ["q1", "q2"]
    assert collector.state_dict()["buffer"]["waiting"][1]["step"] == 1  # when it was asked
    assert collector.metrics()["relift/teacher/asked"] == 2


def test_a_teacher_alone_is_asked_for_everything_and_its_answers_are_verified():
    teacher = Teacher()
    collector = make(Source.TEACHER, teacher)
    collect(collector, [question(1), question(2)])
    assert len(teacher.asked) == 2 and waiting(collector) == []
    teacher.answers = [TeacherAnswer(teacher.asked[0], "\\boxed{7}", None), TeacherAnswer(teacher.asked[1], None, None)]
    collect(collector, step=2)
    assert waiting(collector) == [] and collector.rejected == {Rejected.WRONG: 1}


def test_a_long_solution_of_the_data_set_is_an_error_where_it_is_told_so_and_a_teachers_never_is():
    teacher = Teacher()
    collector = make(Source.DATASET_THEN_TEACHER, teacher, max_tokens=2, overlong=Overlong.ERROR)
    collector.collect([question(1)], [], 1)
    with pytest.raises(OverlongDemonstration):
        collector.settle()
    collector = make(Source.TEACHER, teacher, max_tokens=2, overlong=Overlong.ERROR)
    collect(collector, [question(1)])
    teacher.answers = [TeacherAnswer(teacher.asked[-1], "\\boxed{1}", None)]
    collect(collector, step=2)
    assert collector.rejected == {Rejected.OVERLONG: 1}


def test_what_is_taken_is_counted():
    collector = make()
    collect(collector, [question(1), question(2), question(3)])
    taken = collector.take(2, Random(0))
    assert [d.question for d in taken] == ["q1", "q2"]
    metrics = collector.metrics()
    assert metrics["relift/sft_updates"] == 1 and metrics["relift/demonstrations_used"] == 2
    assert metrics["relift/sft_tokens"] == sum(len(d.prompt_ids) + len(d.response_ids) for d in taken)
    assert metrics["relift/demonstration_fraction"] == 0.2


def test_the_state_is_whole_even_if_something_is_under_way():
    collector, other = make(), make()
    collector.collect([question(1)], [], 1)
    other.load_state_dict(json.loads(json.dumps(collector.state_dict())))
    assert waiting(other) == ["q1"] and other.metrics() == collector.metrics()
