"""The optimiser's loop: resumable, the same on CPU and CUDA, one replayed graph a step where there is CUDA."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

WARM_UP = 200  # steps
DECAY = 0.25  # share of the steps over which the learning rate falls to nothing
AVERAGE_EVERY = 10  # steps between two looks of the moving average
EAGER = 3  # steps before a CUDA graph is taken: memory and autotuned kernels are settled by then

Inputs = dict[str, Tensor]
Loss = Callable[[Inputs], tuple[Tensor, Tensor]]  # inputs to the loss and the loss of each example


@dataclass(frozen=True)
class Run:
    """What is the same in all trainings. A run goes on from `out`/`name`.pt where it is there."""

    out: Path
    name: str
    steps: int
    rate: float  # of learning, at its peak
    seed: int = 0
    device: str = "cpu"
    save_every: int = 100
    measure_every: int = 0  # 0: never


def first_step(run: Run) -> int:
    """The step at which a run goes on."""
    checkpoint = _checkpoint(run)
    return int(torch.load(checkpoint, weights_only=True, map_location="cpu")["step"]) if checkpoint.exists() else 0


def generator_of(seed: int, step: int, device: str) -> torch.Generator:
    """Random numbers of one step, whatever came before it."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)


def optimise(
    model: nn.Module,
    batches: Iterable[tuple[Inputs, dict[str, Any]]],
    loss_of: Loss,
    run: Run,
    measure: Callable[[], dict[str, Any]] | None = None,
) -> None:
    """Optimise `model` with AdamW, warm-up and a linear decay at the end; leave its moving average in `model`.

    Parameters
    ----------
    model
        On the run's device.
    batches
        Of each step from `first_step` on: what `loss_of` takes, in shapes that never change, and what the log keeps.
    measure
        Called with the moving average in `model`; what it returns goes to the log.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = run.device == "cuda"  # shapes never change
    parameters = list(model.parameters())
    rate = torch.tensor(run.rate, device=run.device)
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-2, fused=True, capturable=run.device == "cuda")
    weights = [p.detach() for p in parameters]  # the same memory
    average = [w.clone() for w in weights]
    first = 0
    if _checkpoint(run).exists():
        state = torch.load(_checkpoint(run), weights_only=True, map_location=run.device)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        # What belongs to the device and not to the run: a checkpoint may come from another one.
        optimiser.param_groups[0] |= {"lr": rate, "capturable": run.device == "cuda"}
        average, first = state["average"], state["step"]
    # Not .train(): diffusers' temporal layers drop out a tenth, too much for models this small.
    model.eval()
    step_once = _Step(optimiser, parameters, loss_of, run.device)
    progress = tqdm(total=run.steps, initial=first, desc=run.name)
    began = time.monotonic()
    for step, (inputs, record) in enumerate(batches, start=first):
        rate.fill_(run.rate * min(1.0, (step + 1) / WARM_UP, (run.steps - step) / (DECAY * run.steps)))
        loss, each = step_once(inputs)
        done = step + 1
        if done % AVERAGE_EVERY == 0 or done == run.steps:
            # Young averages forget faster, so that the first steps do not stay in them.
            share = max(1 - 0.998**AVERAGE_EVERY, AVERAGE_EVERY / (done + AVERAGE_EVERY))
            torch._foreach_lerp_(average, weights, share)
        if done % 10 == 0 or done == run.steps or run.steps < 100:
            _log(run, {"step": step, "loss": round(loss.item(), 5), **record, "losses": rounded(each)})
            progress.set_postfix(loss=f"{loss.item():.3f}")
        progress.update()
        if measure is not None and run.measure_every and done % run.measure_every == 0:
            with _Averaged(weights, average):
                _log(run, {"step": step, "seconds": round(time.monotonic() - began), **measure()}, show=True)
        if done % run.save_every == 0 or done == run.steps:
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "step": done,
            }
            torch.save(state, _checkpoint(run).with_suffix(".tmp"))
            os.replace(_checkpoint(run).with_suffix(".tmp"), _checkpoint(run))
    progress.close()
    torch._foreach_copy_(weights, average)


class _Step:
    """Forward, backward and update; on CUDA one graph after some steps, so that small kernels cost nothing to start."""

    def __init__(
        self, optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter], loss_of: Loss, device: str
    ) -> None:
        self.optimiser, self.parameters, self.loss_of, self.cuda = optimiser, parameters, loss_of, device == "cuda"
        self.seen = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        if not self.cuda:
            return self._step(inputs)
        if self.seen < EAGER:
            self.seen += 1
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                found = self._step(inputs)
            torch.cuda.current_stream().wait_stream(stream)
            return found
        if self.graph is None:
            self.inputs = {name: value.clone() for name, value in inputs.items()}
            self.graph = torch.cuda.CUDAGraph()
            self.optimiser.zero_grad()
            # Thread-local: the loader's thread pins memory meanwhile.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.found = self._step(self.inputs)
        for name, value in inputs.items():
            self.inputs[name].copy_(value)
        self.graph.replay()
        return self.found

    def _step(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        loss, each = self.loss_of(inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.detach(), each.detach()


class _Averaged:
    """The moving average in place of the weights, for as long as it is looked at."""

    def __init__(self, weights: list[Tensor], average: list[Tensor]) -> None:
        self.weights, self.average = weights, average

    def __enter__(self) -> None:
        self.kept = [w.clone() for w in self.weights]
        torch._foreach_copy_(self.weights, self.average)

    def __exit__(self, *failed: object) -> None:
        torch._foreach_copy_(self.weights, self.kept)


def rounded(values: Tensor) -> list[float]:
    """For the log."""
    return [round(v, 5) for v in values.tolist()]


def _checkpoint(run: Run) -> Path:
    return run.out / f"{run.name}.pt"


def _log(run: Run, record: dict[str, Any], show: bool = False) -> None:
    line = json.dumps(record)
    with (run.out / f"{run.name}.jsonl").open("a") as lines:
        lines.write(line + "\n")
    if show:
        tqdm.write(line)
