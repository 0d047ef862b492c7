"""The trainer's own parts that need no workers."""

from types import SimpleNamespace

import pytest
import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_relift import trainer as trainer_module
from verl_relift.checks import program_settings
from verl_relift.methods import Method
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.rollout import groups as groups_module
from verl_relift.run import checkpoints
from verl_relift.run.composition import Arguments
from verl_relift.run.runaway import Runaway
from verl_relift.trainer import MethodTrainer
from verl_relift.types import Prompt, Question
from verl_relift.verl_trainer import ResumableTrainer

AGENT_LOOP = ("relift.rollout.batched=false", "reward.num_workers=1")


@pytest.mark.parametrize(
    ("overrides", "opened", "kwargs"),
    [
        (AGENT_LOOP, "<think>\n", {"prompt_opens_thought": True}),
        (AGENT_LOOP, "", {"prompt_opens_thought": False}),
        (
            (*AGENT_LOOP, "+reward.custom_reward_function.reward_kwargs.thinking=required"),
            "<think>",
            {"prompt_opens_thought": True, "thinking": "required"},
        ),
        ((*AGENT_LOOP, "reward.custom_reward_function.path=mine.py"), "<think>", None),
        # Rollouts in batches are graded prompt by prompt.
        ((), "<think>", None),
    ],
)
def test_verls_reward_workers_are_told_how_prompts_end(monkeypatch, overrides, opened, kwargs):
    def tokenizer_of(trainer):
        trainer.tokenizer = build_tokenizer()
        trainer.tokenizer.chat_template += "{% if add_generation_prompt %}" + opened + "{% endif %}"

    monkeypatch.setattr(PPOTrainerSync, "_init_tokenizer", tokenizer_of)
    trainer = object.__new__(MethodTrainer)
    trainer.config = Arguments(overrides=overrides).compose("cpu")
    trainer.settings = program_settings(trainer.config)
    trainer._init_tokenizer()
    assert trainer.config.reward.custom_reward_function.get("reward_kwargs") == kwargs


def test_a_validation_that_fails_costs_no_checkpoint(tmp_path, monkeypatch):
    """The step's metrics are written and its checkpoint is put into use before the error is raised again."""

    class Trainer(ResumableTrainer):
        def make_step(self, metrics, timing_raw):
            metrics["relift/updates"] = 1
            return "rows"

    def fail(trainer):
        raise RuntimeError("the reward function does not know this data source")

    def compute(trainer, batch, metrics, timing_raw, global_steps, epoch):
        assert (batch, timing_raw, epoch) == ("rows", {"step": 2.0}, 1)
        metrics["training/global_step"] = global_steps

    monkeypatch.setattr(PPOTrainerSync, "_validate", fail)
    monkeypatch.setattr(PPOTrainerSync, "_compute_metrics", compute)
    logged = []
    trainer = object.__new__(Trainer)
    trainer._startup, trainer.steps_per_epoch, trainer.global_steps = None, 3, 4
    trainer.timing_raw, trainer._beside_steps = {"step": 2.0}, ""
    trainer._saved_step = trainer._committed_step = None
    trainer._metrics_file = type("Log", (), {"log": lambda self, data, step: logged.append((step, data))})()
    with pytest.raises(RuntimeError, match="data source"):
        trainer._validate()  # before the first step
    trainer.step({}, trainer.timing_raw)
    with pytest.raises(RuntimeError, match="data source"):
        trainer._validate()  # after a step without a checkpoint
    assert not logged
    trainer._saved_step = 4
    with pytest.raises(RuntimeError, match="data source"):
        trainer._validate()
    assert logged == [(4, {"relift/updates": 1, "training/global_step": 4})]


@pytest.mark.parametrize(
    ("step", "recorded", "val_only", "validates"),
    [(0, [], False, True), (4, [1, 2, 3, 4, 5], False, False), (4, [], False, True), (4, [4], True, True)],
)
def test_a_resumed_step_has_its_record_and_is_not_validated_again(
    step, recorded, val_only, validates, tmp_path, monkeypatch
):
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {n}}}\n' for n in recorded))
    settings = SimpleNamespace(default_local_dir=str(tmp_path), val_before_train=True, val_only=val_only)
    trainer = object.__new__(MethodTrainer)
    trainer.config, trainer.global_steps, trainer.replay_buffer = SimpleNamespace(trainer=settings), step, None
    monkeypatch.setattr(PPOTrainerSync, "fit", lambda *_: None)
    trainer.fit(None)
    assert settings.val_before_train is validates


def test_tensorboard_forgets_the_steps_that_are_made_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    def process(resumed: int, last: int, value: float) -> None:
        adapter = SimpleNamespace(writer=SummaryWriter(tmp_path / "board"))
        adapter.log = lambda data, step, **_: adapter.writer.add_scalar("loss", data["loss"], step)
        tracking = SimpleNamespace(logger={"tensorboard": adapter}, log=adapter.log)
        trainer = object.__new__(MethodTrainer)
        trainer.config = SimpleNamespace(trainer=SimpleNamespace(default_local_dir=str(tmp_path)))
        trainer.global_steps, trainer._saved_step, trainer._committed_step = resumed, None, None
        trainer.on_record = lambda record: None
        trainer.logger = tracking
        for step in range(resumed + 1, last + 1):
            trainer.logger.log({"loss": value}, step)
        adapter.writer.close()

    process(0, 7, 1.0)
    process(4, 9, 2.0)
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [
        *((step, 1.0) for step in range(1, 5)), *((step, 2.0) for step in range(5, 10))
    ]  # fmt: skip


def test_what_a_run_does_beside_the_stages_of_a_step_is_said(monkeypatch):
    trainer = object.__new__(MethodTrainer)
    trainer.timing_raw, trainer._beside_steps, trainer._saved_step, trainer._committed_step = {}, "", None, None
    said = []
    monkeypatch.setattr(PPOTrainerSync, "_validate", lambda trainer: said.append(trainer.doing()))
    monkeypatch.setattr(MethodTrainer, "_write_checkpoint", lambda trainer: said.append(trainer.doing()))
    assert trainer.doing() == "generating"  # before the first step, too
    trainer._validate()
    trainer._save_checkpoint()
    assert said == ["validating", "saving"] and trainer.doing() == "generating"


def test_a_checkpoint_has_what_the_records_up_to_its_own_step_have_told(tmp_path, monkeypatch):
    """A step is recorded after its checkpoint is written, and before it is put into use."""

    def trainer_of(runaway, mode="disable"):
        trainer = object.__new__(MethodTrainer)
        folders = {"default_local_dir": str(tmp_path), "max_actor_ckpt_to_keep": None, "resume_mode": mode}
        trainer.config = SimpleNamespace(trainer=SimpleNamespace(**folders))
        trainer.checkpoint_callback = SimpleNamespace(on_save=lambda **_: None)
        trainer.on_record = lambda record: None
        trainer.actor_rollout_wg = SimpleNamespace(load_extra=lambda *_: None, load_checkpoint=lambda *_, **__: None)
        trainer.train_dataloader = SimpleNamespace(load_state_dict=lambda state: None)
        trainer.method = SimpleNamespace(load_state_dict=lambda state: None)
        trainer.needs = SimpleNamespace(separate_moments=False)
        trainer._runaway = runaway
        return trainer

    saving = trainer_of(Runaway())
    folder = checkpoints.begin(tmp_path, 2)
    (folder / "relift").mkdir()
    (folder / checkpoints.STATE_FILE).write_text("{}")
    torch.save({}, folder / "data.pt")
    saving._saved_step, saving._committed_step = 2, None
    for step in (1, 2):
        assert list(saving._runaway.lines({"actor/entropy": float(step)}, step)) == []
    saving._recorded({})
    assert not folder.exists()
    resumed = trainer_of(Runaway(), "auto")
    resumed._load_checkpoint()
    assert resumed._runaway.state_dict() == saving._runaway.state_dict()
    assert resumed._runaway.state_dict()["first"]["actor/entropy"] == [1.0, 2.0]
    (tmp_path / "global_step_2" / checkpoints.RECORDED_FILE).unlink()  # an older checkpoint
    fresh = trainer_of(Runaway(), "auto")
    fresh._load_checkpoint()
    assert fresh._runaway.state_dict() == Runaway().state_dict()


# ---- asking again ----------------------------------------------------------------------------------------------------


class Queue:
    """TransferQueue's key-value interface, in this process."""

    def __init__(self):
        self.rows = {}

    def kv_batch_get(self, keys, partition_id, select_fields):
        return {name: Column(self.rows[key][name] for key in keys) for name in select_fields}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            del self.rows[key]


class Column(list):
    """A column of rows of different lengths."""

    def sum(self, dim):
        return torch.stack([row.sum() for row in self])

    def unbind(self):
        return list(self)


class AsksAgain(Method):
    """Asks by a plan: for each attempt, the draws to ask and whether they are set aside."""

    def __init__(self, plan):
        self.plan, self.seen = plan, []

    def retry(self, groups, step, attempt):
        self.seen.append(groups)
        by_draw = {group.question.draw: group.question for group in groups}
        asked = self.plan[attempt - 1] if attempt <= len(self.plan) else {}
        return [Prompt(by_draw[draw], ({"role": "user", "content": "hint"},), aside=a) for draw, a in asked.items()]


@pytest.fixture
def asking(monkeypatch):
    """A function from a plan to the method, the batch after its retries, and the queue."""
    queue = Queue()
    for module in (trainer_module, groups_module):
        monkeypatch.setattr(module, "tq", queue)

    def run(plan):
        trainer = object.__new__(MethodTrainer)
        trainer.method = AsksAgain(plan)
        trainer._method_class, trainer._method_settings = AsksAgain, None
        trainer.global_steps = 1
        trainer.settings = SimpleNamespace(reward=SimpleNamespace(correct_from=None))
        trainer._prompts, answered = {}, []

        def ask(prompts):
            for prompt in prompts:
                for k in range(2):
                    reward = torch.tensor([0.0, float(prompt.attempt)])
                    response = torch.tensor([prompt.attempt, k])
                    extra = {"reward_extra_info": {"acc": 1.0}}
                    row = {"rm_scores": reward, "extra_fields": extra, "responses": response}
                    key = f"{prompt.question.draw}_{k}_0"
                    queue.rows[key] = row
                    answered.append(key)

        def sample(count, metrics):
            keys, answered[:] = list(reversed(answered)), []
            assert len(keys) == 2 * count
            return trainer.in_order(
                KVBatchMeta(keys=keys, tags=[{"response_len": 2}] * len(keys), partition_id="train")
            )

        trainer._ask, trainer._sample = ask, sample
        questions = [Question(f"q{n}", f"1-{n}", ({"role": "user", "content": f"{n}"},), "1") for n in range(3)]
        trainer._prompts = {question.draw: Prompt.bare(question) for question in questions}
        ask(trainer._prompts.values())
        return trainer.method, trainer._retry(sample(3, {})), queue

    return run


def test_groups_of_a_retry_take_the_places_of_others(asking):
    method, batch, queue = asking([{"1-0": False, "1-2": False}, {"1-2": False}])
    assert batch.keys == [f"1-{n}_{k}_0" for n in range(3) for k in range(2)] and set(queue.rows) == set(batch.keys)
    assert [queue.rows[f"1-{n}_0_0"]["responses"][0].item() for n in range(3)] == [1, 0, 2]
    assert [[group.question.draw for group in groups] for groups in method.seen] == [["1-0", "1-1", "1-2"]] * 3
    assert [group.prompt.attempt for group in method.seen[2]] == [1, 0, 2]
    assert [group.rollouts[0].reward for group in method.seen[2]] == [1.0, 0.0, 2.0]


def test_groups_that_are_set_aside_are_seen_once_and_trained_on_never(asking):
    method, batch, queue = asking([{"1-0": True, "1-1": False}])
    assert batch.keys == [f"1-{n}_{k}_0" for n in range(3) for k in range(2)] and set(queue.rows) == set(batch.keys)
    assert [queue.rows[f"1-{n}_0_0"]["responses"][0].item() for n in range(3)] == [0, 1, 0]
    aside = method.seen[1][3:]
    assert [(group.question.id, group.question.draw, group.prompt.aside) for group in aside] == [("q0", "1-0-1", True)]
    assert [rollout.token_ids.tolist() for rollout in aside[0].rollouts] == [[1, 0], [1, 1]]


def test_every_question_may_be_asked_again(asking):
    _, batch, queue = asking([{f"1-{n}": False for n in range(3)}])
    assert len(batch.keys) == 6 and all(row["responses"][0] == 1 for row in queue.rows.values())


def test_a_method_that_asks_what_was_not_drawn_is_stopped(asking):
    class Twice(AsksAgain):
        def retry(self, groups, step, attempt):
            return [Prompt.bare(groups[0].question)] * 2

    with pytest.raises(ValueError, match="retries a draw twice"):
        method, _, _ = asking([])
        trainer = object.__new__(MethodTrainer)
        trainer.method, trainer._method_class, trainer._method_settings = Twice([]), Twice, None
        trainer.global_steps, trainer._groups_of = 1, lambda batch: method.seen[0]
        trainer._retry(None)
