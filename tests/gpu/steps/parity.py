"""Megatron through verl's engine against Hugging Face: every model and precision in one process of one layer spec."""

import copy
import os
from pathlib import Path

from ..report import Report, Skipped
from ..step import Task

# What differs between them: biases, tied embeddings, norms of queries and keys, Llama 3.1's rope scaling.
CASES = ("qwen2-plain", "qwen2-tied", "llama-plain", "llama-llama3", "qwen3-plain")
FP32, COSINE = 1e-4, 0.98


def run(report: Report, task: Task) -> None:
    """Compare log-probs, entropies, losses and gradients of the parity batch."""
    # Transformer Engine multiplies fp32 in TF32 otherwise.
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    from verl_relift.upstream import transformer_engine

    if task.argument == "local":
        os.environ[transformer_engine.VARIABLE] = "0"
    elif (reason := transformer_engine.why_not()) is not None:
        raise Skipped(reason)
    from .. import engine

    engine.start(task.device)
    for dtype in ("float32", "bfloat16"):
        for case in CASES:
            with report.part(f"{case}, {task.argument}, {dtype}"):
                _compare(report, task, case, dtype)
            engine.release()


def _compare(report: Report, task: Task, case: str, dtype: str) -> None:
    import torch

    from verl_relift.quickstart.base_model import build_tokenizer
    from verl_relift.testing.parity.batch import SPLITS
    from verl_relift.testing.parity.engine_worker import policy, supervised, to_tensordict
    from verl_relift.testing.parity.models import make_case
    from verl_relift.testing.parity.reference import LOSSES, log_probs_and_entropies

    from .. import engine

    model, folder = make_case(case), Path(task.folder) / case
    if not folder.exists():
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
    # The complete gradients, not the distributed optimizer's buffers.
    config = engine.compose(task.device, folder, "actor_rollout_ref.actor.megatron.use_distributed_optimizer=false")
    rank = engine.Rank(config, dtype)
    with rank.engine.eval_mode():
        inferred = rank.engine.infer_batch(to_tensordict(rank.engine, max(SPLITS)))["model_output"]
    ours = [[row.float().cpu() for row in inferred[name].unbind()] for name in ("log_probs", "entropy")]
    with torch.no_grad():
        exact = log_probs_and_entropies(model)
    found = _errors(ours, exact)
    name = f"{case}, {task.argument}, {dtype}"
    if dtype == "float32":
        report.check(f"{name}: log-probs, entropy", max(found) < FP32, found, f"< {FP32}")
    else:
        with torch.no_grad():
            device = copy.deepcopy(model).to(task.device).bfloat16()
            theirs = _errors(_rounded(device), exact)
        holds = all(o < 3 * t + 1e-2 for o, t in zip(found, theirs, strict=True))
        report.check(f"{name}: log-probs, entropy", holds, found, f"< 3 x Hugging Face's in bf16 {theirs} + 0.01")
    with rank.engine.train_mode():
        gradients = {"supervised": supervised(rank.engine, SPLITS[1])}
        if dtype == "float32":
            # Rounding in bf16 moves tokens over the edge where the policy loss is clipped, and their gradients too.
            gradients["policy"] = policy(rank.engine, SPLITS[1])
    for loss_name, (value, gradient) in gradients.items():
        model.zero_grad()
        loss = LOSSES[loss_name](model)
        loss.backward()
        _compare_gradients(report, f"{name}: {loss_name}", dtype, (value, gradient), loss.item(), model)


def _rounded(model):
    """Return log-probs and entropies of a bf16 model, on its own device, in fp32 from the logits on."""
    import torch

    from verl_relift.testing.parity.batch import make_batch

    log_probs, entropies = [], []
    for prompt, response in zip(*make_batch(), strict=True):
        ids = torch.cat([prompt, response]).to(next(model.parameters()).device)
        distribution = torch.log_softmax(model(input_ids=ids[None]).logits[0].float(), -1)
        values = distribution[:-1].gather(1, ids[1:, None])[:, 0]
        log_probs.append(torch.cat([values, values.new_zeros(1)]).cpu())
        entropies.append(-(distribution.exp() * distribution).sum(-1).cpu())
    return log_probs, entropies


def _errors(ours, exact) -> list[float]:
    """Return the largest differences of log-probs and of entropies."""
    log_probs = max((a[:-1] - b).abs().max().item() for a, b in zip(ours[0], exact[0], strict=True))
    entropy = max((a - b).abs().max().item() for a, b in zip(ours[1], exact[1], strict=True))
    return [log_probs, entropy]


def _compare_gradients(report: Report, name: str, dtype: str, ours, loss: float, model) -> None:
    import torch

    value, gradient = ours
    pairs = [(gradient[n].float().cpu().flatten(), p.grad.flatten()) for n, p in model.named_parameters()]
    if dtype == "float32":
        largest = max((a - b).abs().max().item() / (1e-5 + b.abs().max().item()) for a, b in pairs)
        report.check(f"{name}: gradient, relative", largest < 1e-3, largest, "< 1e-3")
        report.check(f"{name}: loss", abs(value - loss) < FP32, value - loss, f"< {FP32}")
    else:
        least = min(torch.nn.functional.cosine_similarity(a.double(), b.double(), 0).item() for a, b in pairs)
        report.check(f"{name}: cosine of the gradient", least > COSINE, least, f"> {COSINE}")
