"""vLLM's CPU engine starts sooner and leaves the cores to those who work."""


def test_one_rank_of_vllm_still_has_a_process_of_its_own(vllm_process):
    """The day this fails, `run_one_rank_in_engine` can go."""
    assert vllm_process["backends"] == {"patched": ["uni", "mp"], "upstream": ["mp"]}


def test_who_waits_for_a_message_of_vllm_still_spins(vllm_process):
    """The day this fails, `sleep_between_messages` can go."""
    busy = vllm_process["busy"]  # of 0.8 seconds
    assert busy["patched"] < 0.3
    assert busy["upstream"] > 2 * busy["patched"]


def test_vllm_still_spawns_its_processes_inside_an_actor(vllm_process):
    """The day this fails, `fork_engine_processes` can go."""
    assert vllm_process["start"] == {"patched": "fork", "upstream": "spawn"}
