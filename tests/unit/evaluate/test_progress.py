"""The progress of an evaluation: tokens of unfinished responses count, and the time left is right after a minute."""

import heapq
import random

import pytest

from verl_relift.evaluate.progress import Progress, Snapshot


class Engine:
    """An engine whose forward pass takes a fixed time, a time per sequence, and a time per token of new prompts."""

    def __init__(self, number, lengths, concurrent, prompt, costs):
        self.number, self.lengths, self.concurrent, self.prompt, self.costs = number, lengths, concurrent, prompt, costs
        self.seconds, self.passes, self.tokens, self.prompts, self.running = 0.0, 0, 0, 0, []

    def step(self):
        """Make a forward pass; return the lengths of the responses that it finishes."""
        new = 0
        while len(self.running) < self.concurrent and self.lengths and new * self.prompt < 2048:
            self.running.append([0, self.lengths.pop()])
            new += 1
        self.seconds += self.costs[0] + self.costs[1] * len(self.running) + self.costs[2] * new * self.prompt
        self.passes += 1
        self.prompts += new * self.prompt
        self.tokens += len(self.running)
        for response in self.running:
            response[0] += 1
        finished = [done for done, length in self.running if done >= length]
        self.running = [response for response in self.running if response[0] < response[1]]
        return finished

    def snapshot(self):
        lengths = tuple(done for done, _ in self.running)
        return Snapshot(self.number, self.seconds, self.passes, self.tokens, self.prompts, lengths)


def estimates(progress, engines):
    """Run the engines; return (seconds, seconds left as estimated) about every ten seconds, and the seconds of all."""
    events = [(0.0, engine.number) for engine in engines]
    last, found = dict.fromkeys(range(len(engines)), 0.0), []
    while events:
        _, number = heapq.heappop(events)
        engine = engines[number]
        for length in engine.step():
            progress.finish(length)
        if engine.seconds - last[number] >= 1.0:
            if number == 0 and int(engine.seconds / 30) > int(last[number] / 30):
                found.append((engine.seconds, progress.seconds_left()))
            last[number] = engine.seconds
            progress.observe(engine.snapshot())
        if engine.running or engine.lengths:
            heapq.heappush(events, (engine.seconds, number))
    return found, max(engine.seconds for engine in engines)


LENGTHS = {
    "short": lambda rng: rng.randint(5, 60),
    "one third cut": lambda rng: min(256, int(rng.lognormvariate(5.0, 0.8))),
    "two kinds": lambda rng: rng.randint(10, 30) if rng.random() < 0.6 else 256,
}
COSTS = {  # seconds
    "cpu": (0.05, 0.003, 0.0006),
    "memory bound": (0.2, 0.0001, 0.00005),
    "slow prompts": (0.05, 0.003, 0.0015),
}


@pytest.mark.parametrize("engines", [1, 2])
@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("requests", [300, 1500])
def test_the_time_left_is_right_within_30_percent_after_a_minute(requests, lengths, costs, engines):
    """Where so little is left that a few responses decide, within twenty seconds."""
    rng = random.Random(requests)
    drawn = [max(1, LENGTHS[lengths](rng)) for _ in range(requests)]
    progress = Progress(requests, requests * 100, 256, 128)
    shares = [drawn[i::engines] for i in range(engines)]
    found, total = estimates(progress, [Engine(i, share, 128, 100, COSTS[costs]) for i, share in enumerate(shares)])
    wrong = [
        (at, left, total - at)
        for at, left in found
        if at >= 60 and abs(left - (total - at)) > max(20.0, 0.3 * (total - at))
    ]
    assert not wrong, wrong


def test_tokens_of_unfinished_responses_count():
    progress = Progress(requests=4, prompt_tokens=400, max_tokens=1000, concurrent=4)
    progress.observe(Snapshot(0, 10.0, 50, 200, 400, (50, 50, 50, 50)))
    assert progress.line().startswith("0/4 responses, 200 tokens, 20 tokens/s, at most ")


def test_the_first_passes_which_warm_up_say_nothing_of_the_time_left():
    progress = Progress(requests=128, prompt_tokens=4000, max_tokens=320, concurrent=32)
    progress.observe(Snapshot(0, 60.0, 1, 26, 4000, (1,) * 26))
    assert progress.line() == "0/128 responses, 26 tokens, 0 tokens/s, estimating the time left"
    progress.observe(Snapshot(0, 70.0, 20, 600, 4000, (19,) * 32))
    assert "left" in progress.line() and "estimating" not in progress.line()


def test_a_line_before_anything_has_happened():
    assert "0/4 responses, 0 tokens" in Progress(4, 400, 1000, 4).line()
