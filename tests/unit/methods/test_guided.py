"""Methods that guide what is sampled: what they ask, what they ask again, and the loss of two rows by hand."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tests.unit.methods.steps import TOKENIZER, group, question, resources
from verl_relift.actor.losses import all_terms, guided_terms
from verl_relift.methods import read_method
from verl_relift.methods.guidance import cosine
from verl_relift.methods.heads import clipped_ratio, highest_entropy
from verl_relift.methods.weight import TokenStatistics
from verl_relift.settings import SettingsError
from verl_relift.types import GradedRollout, Group, Prompt, Role


def make(tmp_path, name: str, **settings):
    cls, read = read_method({"name": name, **settings})
    return cls(read, resources(tmp_path))


def solution(number: int) -> list[int]:
    return TOKENIZER.encode(f"\\boxed{{{number}}}", add_special_tokens=False)


def answered(prompt: Prompt, *rewards: float, forced: int = 0) -> Group:
    """The graded group of a prompt; its last answers have a head of `forced` tokens where there is one."""
    made = group(prompt.question, *rewards)
    rollouts = [replace(r, forced=forced, tokens=r.tokens + forced) for r in made.rollouts]
    return Group(prompt, tuple(rollouts))


# ---- heads -----------------------------------------------------------------------------------------------------------


def test_a_course_falls_as_half_a_cosine_wave():
    assert [cosine(0.95, 0.05, step, 300) for step in (0, 150, 300, 400)] == pytest.approx([0.95, 0.5, 0.05, 0.05])
    assert cosine(1.0, 0.2, 5, 0) == 0.2


def test_a_head_of_uft_is_a_number_of_whole_segments(tmp_path):
    method = make(tmp_path, "uft", segments=3)
    asked = [question(n) for n in range(100, 160)]
    prompts = method.prompts(asked, 1)
    lengths = set()
    for prompt in prompts:
        tokens = solution(int(prompt.question.ground_truth))
        assert list(prompt.forced) == tokens[: len(prompt.forced)]
        assert prompt.messages == prompt.question.messages and prompt.guided is None and not prompt.own_mean
        lengths.add(len(prompt.forced))
    whole = len(solution(100))
    assert lengths <= {whole * j // 3 for j in range(4)} and whole in lengths
    assert method.prompts(asked, 1) == prompts and method.prompts(asked, 2) != prompts
    assert method.prompts(asked[10:12], 1) == prompts[10:12]  # a refill of the step draws for itself
    assert np.mean([len(prompt.forced) == 0 for prompt in method.prompts(asked, 300)]) > 0.5
    assert method.prompts(asked, 301) == [Prompt.bare(one) for one in asked]


def test_one_answer_of_prefix_rft_begins_with_a_head_of_the_drawn_length(tmp_path):
    method = make(tmp_path, "prefix_rft", high=0.8, low_first=0.8, low_last=0.2, steps=10)
    asked = [question(n) for n in range(100, 140)]
    (whole,) = {len(solution(n)) for n in range(100, 140)}
    assert {len(prompt.forced) for prompt in method.prompts(asked, 0)} == {int(0.8 * whole)}
    later = method.prompts(asked, 10)
    assert {len(prompt.forced) for prompt in later} >= {int(0.3 * whole), int(0.7 * whole)}
    assert all(int(0.2 * whole) <= len(prompt.forced) <= int(0.8 * whole) for prompt in later)
    assert all(prompt.guided == 1 and prompt.own_mean for prompt in later)
    head = later[0].forced
    assert later[0].parts(8) == [((), 7), (head, 1)]


@pytest.mark.parametrize("name", ["uft", "prefix_rft"])
def test_a_question_without_a_solution_that_holds_is_asked_as_it_is(name, tmp_path):
    method = make(tmp_path, name)
    prompts = method.prompts([question(1, "wrong"), question(2, None)], 1)
    assert [prompt.forced for prompt in prompts] == [(), ()]
    assert [prompt.parts(8) for prompt in prompts] == [[((), 8)]] * 2


@pytest.mark.parametrize(("name", "off"), [("uft", {"steps": 0}), ("prefix_rft", {"answers": 0})])
def test_without_heads_the_questions_are_those_of_grpo(name, off, tmp_path):
    method, asked = make(tmp_path, name, **off), [question(1), question(2)]
    assert method.prompts(asked, 1) == [Prompt.bare(one) for one in asked]


def test_what_the_prompt_has_written_is_not_in_the_head(tmp_path):
    method = make(tmp_path, "uft", first=1.0, last=1.0)
    opened = "1=?\n<think>\n"
    method.resources = replace(
        method.resources, encode_prompt=lambda _: tuple(TOKENIZER.encode(opened, add_special_tokens=False))
    )
    asked = replace(question(1), target="<think>\n1</think>\\boxed{1}")
    (prompt,) = method.prompts([asked], 1)
    assert TOKENIZER.decode(prompt.forced) == "1</think>\\boxed{1}"


def test_reliance_on_heads_is_a_difference_on_the_same_questions(tmp_path):
    method = make(tmp_path, "prefix_rft")
    one, two = (group(question(n), 0.0, 0.0, 1.0) for n in (1, 2))
    one = replace(one, rollouts=(*one.rollouts[:2], replace(one.rollouts[2], forced=5)))
    method.supervised([one, two], 1)  # the second has no head
    metrics = method.metrics()
    assert metrics == {"method/forced_tokens": 5.0, "method/guided_answers": 1 / 6, "method/hint_reliance": 1.0}


# ---- losses by hand --------------------------------------------------------------------------------------------------

# Two rows end to end: a head of three tokens with its continuation, and a head of two with its own.
ROLES = torch.tensor([Role.HINT] * 3 + [Role.CONTINUATION] + [Role.HINT] * 2 + [Role.CONTINUATION])
ROWS = torch.tensor([0, 0, 0, 0, 1, 1, 1])
P = [0.5, 0.1, 0.9, 0.3, 0.2, 0.6, 0.4]
OLD = [0.4, 0.2, 0.3, 0.3, 0.2, 0.6, 0.4]
ENTROPY = [0.1, 2.0, 0.5, 9.0, 0.3, 0.7, 9.0]
ADVANTAGE = [0.75] * 4 + [-0.5] * 3
COUNTS = [0, 0, 5, 2, 0]


def statistics(chosen=slice(None)) -> TokenStatistics:
    log_prob, old = (torch.tensor(values, dtype=torch.float64).log()[chosen] for values in (P, OLD))
    entropy, advantage = (torch.tensor(values, dtype=torch.float64)[chosen] for values in (ENTROPY, ADVANTAGE))
    return TokenStatistics(log_prob.requires_grad_(), old, entropy, advantage, 0, ROLES[chosen], ROWS[chosen])


def loss(name: str, token: TokenStatistics, chosen=slice(None), **settings) -> torch.Tensor:
    """The term on heads; a joint one under the normalizer of a token mean over all roles."""
    cls, read = read_method({"name": name, **settings})
    terms = all_terms(cls.token_weights(read), cls.terms(read))
    coefficients = cls(read, None).coefficients(1)
    joint = lambda losses, mask: losses[mask].sum() / sum(COUNTS)  # noqa: E731
    return guided_terms(token, ROLES[chosen], terms, COUNTS, coefficients, joint)[Role.HINT]


def test_the_loss_of_uft_on_two_rows():
    token = statistics()
    result = loss("uft", token, hint_coeff=0.01)
    by_hand = -0.01 * sum(math.log(P[i]) for i in (0, 1, 2, 4, 5)) / 5
    assert result.item() == pytest.approx(by_hand, abs=1e-6)
    result.backward()
    expected = [-0.01 / 5 if i in (0, 1, 2, 4, 5) else 0.0 for i in range(7)]
    assert token.log_prob.grad.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_loss_of_prefix_rft_on_two_rows():
    """Kept: of the first row the second and third token, of the second row its second. All of them at 7 tokens."""
    token = statistics()
    result = loss("prefix_rft", token, entropy_share=0.5)
    ratios = {1: 0.5, 2: 3.0, 5: 1.0}
    # The second token falls without a clip, as its advantage is positive; the third is clipped at 1.2.
    by_hand = -(0.75 * 0.5 + 0.75 * 1.2 + -0.5 * 1.0) / 7
    assert result.item() == pytest.approx(by_hand, abs=1e-6)
    result.backward()
    # d/dl of -A r is -A r; nothing where it is clipped.
    expected = [0.0] * 7
    expected[1], expected[5] = -0.75 * ratios[1] / 7, 0.5 * ratios[5] / 7
    assert token.log_prob.grad.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["uft", "prefix_rft"])
def test_the_loss_does_not_depend_on_the_split_into_micro_batches(name):
    whole = loss(name, statistics())
    parts = [loss(name, statistics(rows), rows) for rows in (slice(0, 4), slice(4, 7))]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-12)


def test_more_guided_answers_share_the_advantage():
    assert loss("prefix_rft", statistics(), answers=2, entropy_share=0.2).item() == pytest.approx(
        loss("prefix_rft", statistics(), entropy_share=0.2).item() / 2
    )


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0.0, []), (0.01, [1, 5]), (0.34, [1, 2, 5]), (0.5, [1, 2, 5]), (0.67, [0, 1, 2, 4, 5]), (1.0, [0, 1, 2, 4, 5])],
)
def test_the_tokens_of_the_highest_entropy_are_those_of_their_own_row(share, kept):
    assert torch.nonzero(highest_entropy(statistics(), Role.HINT, share)).flatten().tolist() == kept


def test_a_micro_batch_without_heads_keeps_nothing():
    assert highest_entropy(statistics(slice(3, 4)), Role.HINT, 0.5).tolist() == [0.0]


def test_the_clipped_ratio_is_verls():
    """Against verl's policy loss, token by token, with ratios on all sides of all bounds."""
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
    from verl.workers.config import ActorConfig

    log_ratio = torch.linspace(-3.0, 3.0, 25).repeat(2)
    advantage = torch.tensor([1.0] * 25 + [-2.0] * 25)
    zeros = torch.zeros(50)
    token = TokenStatistics(log_ratio, zeros, None, advantage)
    ours = clipped_ratio(token, advantage, 0.1, 0.3, 3.0)
    config = ActorConfig(
        strategy="megatron",
        clip_ratio=0.2,
        clip_ratio_low=0.1,
        clip_ratio_high=0.3,
        clip_ratio_c=3.0,
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        global_batch_info={"dp_size": 1, "batch_num_tokens": 1},
    )
    mask = torch.ones(1, 1)
    theirs = [
        compute_policy_loss_vanilla(zeros[:1, None], r[None, None], a[None, None], mask, "token-mean", config)[0]
        for r, a in zip(log_ratio, advantage, strict=True)
    ]
    assert ours.tolist() == pytest.approx([value.item() for value in theirs], abs=1e-6)


# ---- asking again ----------------------------------------------------------------------------------------------------


def test_failed_questions_are_asked_with_longer_and_longer_heads(tmp_path):
    method = make(tmp_path, "hint_retry", levels=[0.25, 0.5])
    groups = {n: group(question(n), 0.0, 0.0) for n in (1001, 1002, 1003)} | {4: group(question(4), 0.0, 1.0)}
    first = method.retry(list(groups.values()), 1, 1)
    assert [prompt.question.id for prompt in first] == ["q1001", "q1002", "q1003"]
    assert [list(prompt.forced) for prompt in first] == [
        solution(n)[: int(len(solution(n)) / 4)] for n in groups if n > 4
    ]
    assert all(prompt.guided is None and not prompt.aside for prompt in first)
    groups[1001] = answered(first[0], 0.0, 1.0, forced=2)
    groups[1002], groups[1003] = (answered(prompt, 0.0, 0.0, forced=2) for prompt in first[1:])
    second = method.retry(list(groups.values()), 1, 2)
    assert [prompt.question.id for prompt in second] == ["q1002", "q1003"]
    assert list(second[0].forced) == solution(1002)[: len(solution(1002)) // 2]
    groups[1002], groups[1003] = answered(second[0], 1.0, 1.0, forced=4), answered(second[1], 0.0, 0.0, forced=4)
    assert method.retry(list(groups.values()), 1, 3) == []
    assert method.metrics() == {
        "method/asked_again/level_1": 3,
        "method/solved/level_1": 1,
        "method/asked_again/level_2": 2,
        "method/solved/level_2": 1,
        "method/second_round_tokens": 2 * 3 * 5,
        "method/forced_tokens": 2 * (3 * 2 + 2 * 4),
        "method/hint_reliance": (0.5 + 1.0 + 0.0) / 3,
    }
    # The next step counts for itself.
    assert method.retry([group(question(4), 1.0)], 2, 1) == []
    assert method.metrics() == {"method/second_round_tokens": 0, "method/forced_tokens": 0}


def test_the_shortest_head_is_a_token(tmp_path):
    method = make(tmp_path, "hint_retry", levels=[0.01, 0.5])
    (prompt,) = method.retry([group(question(1), 0.0)], 1, 1)
    assert list(prompt.forced) == solution(1)[:1]


@pytest.mark.parametrize("loss_under", ["sampled", "bare"])
def test_a_hint_stands_in_the_question(loss_under, tmp_path):
    method = make(tmp_path, "hint_retry", kind="hint", levels=[0.5], loss=loss_under, template="{hint}; {question}")
    (prompt,) = method.retry([group(question(1001), 0.0)], 1, 1)
    hint = TOKENIZER.decode(solution(1001)[: len(solution(1001)) // 2])
    assert prompt.messages == ({"role": "user", "content": f"{hint}; 1001=?"},) and prompt.forced == ()
    assert prompt.trained_under == (prompt.question.messages if loss_under == "bare" else None)


def test_hints_of_the_data_set_come_one_after_the_other(tmp_path):
    method = make(tmp_path, "hint_retry", kind="column", max_levels=2)
    assert method.needs(method.settings).hints_column == "hints" and method.needs(method.settings).retries == 2
    groups = [
        group(replace(question(1), hints=("a {question}", "b", "c")), 0.0),
        group(replace(question(2), hints=("only",)), 0.0),
        group(question(3), 0.0),
    ]
    asked = []
    for attempt in (1, 2, 3):
        prompts = method.retry(groups, 1, attempt)
        asked.append([prompt.messages[-1]["content"] for prompt in prompts])
    assert asked == [["1=?\n\nHint: a {question}", "2=?\n\nHint: only"], ["1=?\n\nHint: b"], []]


def test_a_question_that_no_hint_fits_or_that_has_none_is_counted(tmp_path):
    from verl_relift.data.chat import PromptTooLong

    method = make(tmp_path, "hint_retry", kind="hint", levels=[1.0])

    def encode(asked):
        if len(asked.messages[-1]["content"]) > 24:
            raise PromptTooLong
        return (1,)

    method.resources = replace(method.resources, encode_prompt=encode)
    groups = [group(question(1), 0.0), group(question(10**9), 0.0), group(question(3, "wrong"), 0.0)]
    (prompt,) = method.retry(groups, 1, 1)
    assert prompt.question.id == "q1"
    metrics = method.metrics()
    assert metrics["method/unguided/prompt_too_long"] == metrics["method/unguided/wrong"] == 1


def test_nothing_is_asked_again_before_the_first_step(tmp_path):
    method = make(tmp_path, "hint_retry", first_step=5)
    groups = [group(question(1001), 0.0)]
    assert method.retry(groups, 4, 1) == [] and method.metrics()["method/second_round_tokens"] == 0
    assert len(method.retry(groups, 5, 1)) == 1


# ---- solutions in the policy's own words -----------------------------------------------------------------------------


def traced(prompt: Prompt, *texts: str, truncated: bool = False) -> Group:
    """The group that a prompt set aside comes back with."""
    rollouts = []
    for k, text in enumerate(texts):
        ids = np.array([*TOKENIZER.encode(text, add_special_tokens=False), TOKENIZER.eos_token_id])
        right = float(text.endswith(f"boxed{{{prompt.question.ground_truth}}}"))
        rollouts.append(
            GradedRollout(f"{prompt.question.draw}-1_{k}_0", right, right, {}, len(ids), ids, truncated=truncated)
        )
    asked = replace(prompt, question=replace(prompt.question, draw=f"{prompt.question.draw}-1"), attempt=1)
    return Group(asked, tuple(rollouts))


def own_words(method, step: int, groups: list[Group], texts: dict[str, tuple[str, ...]]) -> list[Prompt]:
    """Play the retry of a step: what is asked comes back with texts by question."""
    prompts = method.retry(groups, step, 1)
    back = [traced(prompt, *texts[prompt.question.id]) for prompt in prompts]
    assert method.retry([*groups, *back], step, 2) == []
    return prompts


def texts_of(demonstrations) -> list[str]:
    return [TOKENIZER.decode(d.response_ids[:-1]) for d in demonstrations]


def test_regft_trains_on_what_the_policy_wrote_with_the_solution_in_view(tmp_path):
    method = make(tmp_path, "regft", sft={"weight": 0.5}, privileged={"traces": 2, "template": "{question} {hint}"})
    groups = [group(question(1), 0.0, 0.0), group(question(2), 0.0, 0.0), group(question(3), 1.0, 0.0)]
    written = {"q1": ("4\\boxed{1}", "5\\boxed{1}", "4\\boxed{1}", "6\\boxed{1}"), "q2": ("\\boxed{7}", "8")}
    prompts = own_words(method, 1, groups, written)
    assert [prompt.messages[-1]["content"] for prompt in prompts] == ["1=? \\boxed{1}", "2=? \\boxed{2}"]
    assert all(prompt.aside and prompt.forced == () for prompt in prompts)
    rows = method.supervised(groups, 1).spliced
    assert texts_of(rows.demonstrations) == ["4\\boxed{1}", "5\\boxed{1}"]  # the third is the first again
    assert {d.prompt_ids for d in rows.demonstrations} == {tuple(TOKENIZER.encode("1=?"))}  # the bare question
    assert rows.weight == 0.5 and rows.entropy_coeff == 1e-4
    metrics = method.metrics()
    assert metrics["relift/demonstrations_rejected/unsolved"] == 1
    assert metrics["method/asked_again/level_1"] == 2 and metrics["method/solved/level_1"] == 1
    assert metrics["method/hint_reliance"] == 0.5
    method.close()


def test_answers_that_were_cut_or_are_too_long_are_not_learned(tmp_path):
    method = make(tmp_path, "regft", demonstrations={"max_tokens": 8})
    groups = [group(question(1), 0.0)]
    prompts = method.retry(groups, 1, 1)
    assert method.retry([*groups, traced(prompts[0], "\\boxed{1}", truncated=True)], 1, 2) == []
    assert method.supervised(groups, 1).spliced is None
    own_words(method, 2, groups, {"q1": ("1+2+3+4\\boxed{1}",)})
    assert method.supervised(groups, 2).spliced is None
    method.close()


def test_relift_takes_its_demonstrations_from_the_policy_by_one_setting(tmp_path):
    method = make(tmp_path, "relift", demonstrations={"source": "privileged"}, sft={"batch_size": 2})
    assert method.asks_again(method.settings) and not method.guides_generation()
    assert not method.asks_again(read_method({"name": "relift"})[1])
    first = [group(question(1), 0.0, 0.0)]
    own_words(method, 1, first, {"q1": ("2\\boxed{1}",)})
    assert method.supervised(first, 1).updates() == []
    # One that waits is not asked again.
    second = [*first, group(question(2), 0.0, 0.0), group(question(3, "wrong"), 0.0, 0.0)]
    assert len(own_words(method, 2, second, {"q2": ("3\\boxed{2}",)})) == 1
    (update,) = method.supervised(second, 2).updates()
    assert texts_of(update.demonstrations) == ["2\\boxed{1}", "3\\boxed{2}"]
    assert method.metrics()["relift/demonstrations_rejected/wrong"] == 1
    method.close()


def test_a_resumed_run_continues_with_what_waits(tmp_path):
    settings = {"demonstrations": {"source": "privileged"}, "sft": {"batch_size": 2}}
    first, second = (make(tmp_path, "relift", **settings) for _ in range(2))
    groups = [group(question(1), 0.0)]
    own_words(first, 1, groups, {"q1": ("2\\boxed{1}",)})
    first.supervised(groups, 1).updates()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    groups = [group(question(2), 0.0)]
    own_words(second, 2, groups, {"q2": ("3\\boxed{2}",)})
    (update,) = second.supervised(groups, 2).updates()
    assert texts_of(update.demonstrations) == ["2\\boxed{1}", "3\\boxed{2}"]
    first.close()
    second.close()


# ---- before a run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "hint_retry", "levels": []}, r"method\.levels=\[\] must be one fraction of a solution or more"),
        ({"name": "hint_retry", "levels": [0.5, 0.25]}, r"method\.levels=\[0\.5, 0\.25\] must be"),
        ({"name": "hint_retry", "levels": [0.5, 1.5]}, r"method\.levels=\[0\.5, 1\.5\] must be"),
        ({"name": "hint_retry", "levels": [float("nan")]}, r"method\.levels=\[nan\] must be"),
        ({"name": "hint_retry", "template": "{hint}"}, r"method\.template='\{hint\}' must contain \{question\} and"),
        ({"name": "hint_retry", "max_accuracy": 1.0}, r"method\.max_accuracy=1\.0 must be in \[0, 1\)"),
        ({"name": "hint_retry", "kind": "both"}, r"method\.kind='both' must be one of prefix, hint, column"),
        ({"name": "hint_retry", "demonstrations": {"source": "teacher"}}, r"demonstrations\.source is not a setting"),
        ({"name": "uft", "segments": 0}, r"method\.segments=0 must be at least 1"),
        ({"name": "uft", "first": 1.5}, r"method\.first=1\.5 must be in \[0, 1\]"),
        ({"name": "uft", "hint_coeff": -1.0}, r"method\.hint_coeff=-1\.0 must not be negative"),
        ({"name": "prefix_rft", "answers": -1}, r"method\.answers=-1 must not be negative"),
        ({"name": "prefix_rft", "high": 2.0}, r"method\.high=2\.0 must be in \[0, 1\]"),
        ({"name": "prefix_rft", "clip_c": 1.0}, r"method\.clip_c above 1"),
        ({"name": "regft", "privileged": {"fraction": 0.0}}, r"method\.privileged\.fraction=0\.0 must be in \(0, 1\]"),
        ({"name": "regft", "privileged": {"traces": 0}}, r"method\.privileged\.traces=0 must be at least 1"),
        (
            {"name": "sft", "demonstrations": {"source": "privileged"}},
            r"privileged: this method samples nothing",
        ),
    ],
)
def test_a_wrong_setting_is_named(mapping, message):
    with pytest.raises(SettingsError, match=message):
        read_method(mapping)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"name": "uft", "demonstrations": {"max_tokens": 66}},
            r"max_tokens=66: heads of up to 65 tokens leave",
        ),
        ({"name": "uft", "demonstrations": {"max_tokens": 64}}, None),
        ({"name": "hint_retry", "demonstrations": {"max_tokens": 87}}, r"heads of up to 64 tokens"),
        ({"name": "hint_retry", "kind": "hint", "demonstrations": {"max_tokens": 999}}, None),
        ({"name": "prefix_rft", "demonstrations": {"max_tokens": 64}, "answers": 4}, r"answers=4 leaves no answer"),
        ({"name": "prefix_rft", "demonstrations": {"max_tokens": 64}, "entropy": 0}, r"calculate_entropy=true; set it"),
    ],
)
def test_what_cannot_work_is_one_line(mapping, message):
    mapping = dict(mapping)
    actor = {"calculate_entropy": bool(mapping.pop("entropy", 1)), "entropy_coeff": 0.0}
    config = {
        "method": {"name": mapping["name"]},
        "data": {"max_response_length": 64},
        "actor_rollout_ref": {"actor": actor, "rollout": {"n": 4}},
    }
    cls, settings = read_method(mapping)
    lines = list(cls.problems(settings, OmegaConf.create(config)))
    if message is None:
        assert lines == []
    else:
        (line,) = lines
        assert re.search(message, line) and "\n" not in line
