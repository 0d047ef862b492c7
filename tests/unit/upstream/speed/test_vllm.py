"""vLLM's CPU engine starts sooner, samples sooner, and leaves the cores to those who work."""

import pytest
import torch

from verl_relift.upstream.speed.vllm import exponential_noise


def test_one_rank_of_vllm_still_has_a_process_of_its_own(vllm_process):
    """The day this fails, `run_one_rank_in_engine` can go."""
    assert vllm_process["backends"] == {"patched": ["uni", "mp"], "upstream": ["mp"]}


def test_who_waits_for_a_message_of_vllm_still_spins(vllm_process):
    """The day this fails, `sleep_between_messages` can go."""
    busy = vllm_process["busy"]  # of 0.8 seconds
    assert busy["patched"] < 0.3
    assert busy["upstream"] > 1.25 * busy["patched"]  # 1.5 times beside other tests, 2026-11-27


def test_vllm_still_spawns_its_processes_inside_an_actor(vllm_process):
    """The day this fails, `fork_engine_processes` can go."""
    assert vllm_process["start"] == {"patched": "fork", "upstream": "spawn"}


def test_vllm_still_draws_the_noise_of_seeded_requests_twice(vllm_process):
    """The day this fails, `draw_seeded_noise_once` can go."""
    # For all of 4 rows at once, and for each of them.
    assert vllm_process["sampling"]["draws"] == {"patched": 0, "upstream": 5}


def test_seeded_requests_get_the_tokens_of_upstream(vllm_process):
    assert vllm_process["sampling"]["same"] == [True, True, True]


@pytest.mark.parametrize("columns", [1, 31, 49_152])
def test_noise_is_what_torch_draws(columns):
    def generators():
        return {row: torch.Generator().manual_seed(row) for row in range(3)}

    ours, theirs = generators(), generators()
    for _ in range(3):
        drawn = exponential_noise(torch.empty(3, columns), ours)
        expected = torch.stack([torch.empty(columns).exponential_(generator=one) for one in theirs.values()])
        assert torch.equal(drawn, expected)
    assert all(torch.equal(ours[row].get_state(), theirs[row].get_state()) for row in range(3))
