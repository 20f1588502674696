"""One process or many under torchrun: who am I, and sums over all ranks."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process among its equals.

    Attributes:
        rank: from 0; rank 0 writes the files.
        world: how many processes.
        device: where this process computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """True on the rank that writes files."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over the ranks in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum(self, values: list[float]) -> list[float]:
        """Sums a few numbers over the ranks, exactly for whole ones below 2^53; waits for all ranks."""
        if self.world == 1:
            return list(values)
        return self.sum_(torch.tensor(values, dtype=torch.float64)).tolist()

    def gather(self, value: object) -> list:
        """Every rank's value, in rank order; for small things now and then."""
        if self.world == 1:
            return [value]
        values: list = [None] * self.world
        dist.all_gather_object(values, value)
        return values


def start(timeout: float, device: str = "auto") -> Ranks:
    """Joins the process group that torchrun announces in the environment, or runs alone.

    Args:
        timeout: seconds after which a collective that a rank never joins is an error.
        device: "auto" takes this process's GPU when there is one.
    """
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    if device == "auto":
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    where = torch.device(device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if world > 1 and not dist.is_initialized():
        # Counts and flags stay on the CPU, gradients go where they are.
        backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
        _join(backend, timedelta(seconds=timeout))
    return Ranks(int(os.environ.get("RANK", 0)), world, where)


def _join(backend: str, timeout: timedelta) -> None:
    store, rank, world = next(dist.rendezvous("env://", timeout=timeout))
    if os.environ.get("LOCAL_WORLD_SIZE") == str(world):
        # On one node torchrun keeps its store over restarts, with the addresses of dead ranks in it:
        # without a prefix of its own, a restarted rank now and then connects to one of them.
        store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)


def finish() -> None:
    """Leaves the process group; a DistributedDataParallel over it must have been let go of.

    Its reducer would hold the last reference, and end the group's threads while holding the interpreter's
    lock that they wait for.
    """
    if dist.is_initialized():
        gc.collect()  # such a module is part of a cycle
        dist.destroy_process_group()
