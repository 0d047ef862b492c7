"""The steps in their order: what is proved first is what most else depends on.

A step is a module with `run(report, task)`. It runs in a process of its own, with a time limit.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: as on the command line, and of its files.
        module: the module of this package that is run.
        argument: what the module does of what it can.
        limit: seconds after which it is stopped.
        needs: seconds without which it is not worth starting.
        says: what it proves.
    """

    name: str
    module: str
    argument: str
    limit: float
    needs: float
    says: str


STEPS = (
    Step("imports", "imports", "", 150, 20, "the stack loads, and which versions it is made of"),
    Step("parity-local", "parity", "local", 240, 60, "Megatron's local spec equals Hugging Face, fp32 and bf16"),
    Step("parity-te", "parity", "te", 300, 60, "Transformer Engine equals Hugging Face, fp32 and bf16"),
    Step("resume", "resume", "", 240, 60, "updates, save, a new process, resume: the same bits, both optimizers"),
    Step("memory-0.7b", "memory", "0.7b", 180, 40, "memory of an update against plan; MFU"),
    Step("memory-1.5b", "memory", "1.5b", 240, 60, "memory of an update against plan; MFU"),
    Step("weights", "weights", "", 120, 20, "weights go between two processes, three times"),
    Step("vllm", "vllm", "", 300, 90, "sleep and wake; seeded against unseeded decoding"),
    Step("loop", "loop", "", 420, 150, "the training loop with vLLM; rollouts against the actor"),
    Step("learn", "learn", "", 1500, 240, "Qwen2.5-Coder-0.5B on GSM8K for as long as there is time"),
)
