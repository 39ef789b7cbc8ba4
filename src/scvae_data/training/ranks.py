"""The processes that train one model together: who they are, how they start and end, what they tell one another.

One process prepares nothing here. Several are found in the environment, as
``srun`` and ``torchrun`` leave it, or started by the first of them, one per
device. The configuration of the first is that of all.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from scvae_data.calling import program
from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.system.stopping import Stopped
from scvae_data.wording import first_line

__all__ = ["ALONE", "Ranks", "found_ranks", "strategy_of", "together"]

log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""How long ranks have to end by themselves once one has ended."""
JOIN_SECONDS = 300.0
"""How long ranks wait for the last of them to start."""
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """Where this process stands among those that train together."""

    size: int = 1
    """How many there are, over all machines."""
    rank: int = 0
    """Which one this is."""
    local_size: int = 1
    """How many there are on this machine."""
    local_rank: int = 0
    """Which of these this is."""
    address: str = "127.0.0.1"
    """Where the first of them is met."""
    port: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process tells, logs and writes for all."""
        return self.rank == 0

    def environment(self) -> dict[str, str]:
        """Return the variables by which a process knows its place, as ``torchrun`` sets them."""
        values = (self.rank, self.size, self.local_rank, self.local_size, self.address, self.port)
        return dict(zip(TORCHRUN, map(str, values), strict=True))


ALONE = Ranks()


def found_ranks() -> Ranks | None:
    """Return this process's place among those that something else has started together; None if it is alone."""
    env = os.environ
    if all(name in env for name in TORCHRUN):
        rank, size, local_rank, local_size = (int(env[name]) for name in TORCHRUN[:4])
        found = Ranks(size, rank, local_size, local_rank, env["MASTER_ADDR"], int(env["MASTER_PORT"]))
    elif "SLURM_STEP_NUM_TASKS" in env and "SLURM_PROCID" in env:  # not in a batch script itself, but below srun
        per_node = env.get("SLURM_STEP_TASKS_PER_NODE", env["SLURM_STEP_NUM_TASKS"])
        found = Ranks(
            int(env["SLURM_STEP_NUM_TASKS"]),
            int(env["SLURM_PROCID"]),
            int(per_node.partition("(")[0].partition(",")[0]),
            int(env["SLURM_LOCALID"]),
            SLURMEnvironment.resolve_root_node_address(env.get("SLURM_STEP_NODELIST", "127.0.0.1")),
            # Steps of one job may run side by side.
            15_000 + (int(env["SLURM_JOB_ID"]) * 7 + int(env.get("SLURM_STEP_ID", 0))) % 10_000,
        )
    else:
        return None
    return found if found.size > 1 else None


@contextmanager
def together(config: dict[str, Any]) -> Iterator[tuple[Ranks, dict[str, Any]]]:
    """Join the other ranks, or start them; yield this process's place and the configuration of the first.

    Parameters
    ----------
    config
        Of a run, resolved.

    Raises
    ------
    ConfigError
        The processes that there are do not fit ``trainer.devices`` and ``trainer.num_nodes``.
    ScvaeDataError
        Another rank has ended.
    """
    ranks = found_ranks()
    wanted, n_nodes = device_count(config["trainer"]), int(config["trainer"].get("num_nodes") or 1)
    check_counts(ranks, wanted, n_nodes)
    if ranks is None and wanted == 1:
        yield ALONE, config
        return
    others: list[subprocess.Popen[bytes]] = []
    store = None
    if ranks is None:
        # Whoever listens chooses the port: none is free for sure before.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        ranks, *rest = (Ranks(wanted, rank, wanted, rank, port=store.port) for rank in range(wanted))
        others = [start(other) for other in rest]
    try:
        with suppressed_chatter(ranks), watched(others):
            yield ranks, join(ranks, store, config)
    except RuntimeError as error:
        if (fault := fault_behind(error, ranks, others)) is not None:
            raise fault from error
        raise
    except BaseException:
        for other in others:
            other.terminate()
        raise
    finally:
        end(others)
        if distributed.is_initialized():
            with suppress(RuntimeError):
                distributed.destroy_process_group()


def check_counts(ranks: Ranks | None, wanted: int, n_nodes: int) -> None:
    """Refuse processes that do not fit the devices of a machine, and the machines, that are wanted."""
    if ranks is None and n_nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={n_nodes}: nothing here starts processes on other machines; srun or torchrun does, "
            f"e.g. srun --nodes={n_nodes} --ntasks-per-node={wanted} {program('train')} …"
        )
    if ranks is not None and ranks.is_first and ranks.size != wanted * n_nodes:
        nodes = max(1, ranks.size // ranks.local_size)
        raise ConfigError(
            f"{ranks.size} processes were started together, but trainer.devices={wanted} and "
            f"trainer.num_nodes={n_nodes} ask for {wanted * n_nodes}; "
            f"set trainer.devices={ranks.local_size} trainer.num_nodes={nodes}"
        )


def device_count(trainer: Mapping[str, Any]) -> int:
    """Return how many devices of a machine ``trainer.devices`` means."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return max(1, len(devices))
    text = str(devices)
    if text in ("auto", "-1", "None"):
        on_gpu = trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda")
        return max(1, torch.cuda.device_count() if on_gpu else 1)
    try:
        return max(1, int(text) if "," not in text else len([part for part in text.split(",") if part.strip()]))
    except ValueError:
        raise ConfigError(f"trainer.devices={devices} is no number of devices; give one, or auto") from None


def start(ranks: Ranks) -> subprocess.Popen[bytes]:
    """Start another rank on this machine; it gets its configuration from the first."""
    command = [sys.executable, "-m", "scvae_data.training.rank"]
    return subprocess.Popen(command, env={**os.environ, **ranks.environment()})  # noqa: S603 - this program


def join(ranks: Ranks, store: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Meet the other ranks; return the configuration of the first."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if store is None:
        store = TCPStore(
            ranks.address, ranks.port, is_master=ranks.is_first, timeout=timedelta(seconds=JOIN_SECONDS),
            wait_for_workers=False,
        )  # fmt: skip
    wait_for_all(store, ranks)
    distributed.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size)
    shared = [config]
    distributed.broadcast_object_list(shared, src=0, device=torch.device("cpu"))
    return shared[0]


def wait_for_all(store: Any, ranks: Ranks) -> None:
    """Wait until all ranks are there, where a signal may end it.

    Raises
    ------
    ScvaeDataError
        They do not come.
    """
    until = time.monotonic() + JOIN_SECONDS
    store.add("joined", 1)
    while (n := store.add("joined", 0)) < ranks.size:
        if time.monotonic() > until:
            raise ScvaeDataError(f"{n} of {ranks.size} ranks have come within {JOIN_SECONDS:.0f} s; start all of them")
        time.sleep(0.05)


@contextmanager
def suppressed_chatter(ranks: Ranks) -> Iterator[None]:
    """Leave words to the first rank: what it says, the others would say as well."""
    if ranks.is_first:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def watched(others: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """End this process where another rank has ended, if it does not find out by itself."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            if any(other.poll() for other in others):
                if not done.wait(GRACE_SECONDS):
                    rank, status = ended_first(others) or (0, 1)
                    print(f"error: {fault_of(rank, status)}", file=sys.stderr, flush=True)
                    end(others)
                    os._exit(1)
                return

    if others:
        threading.Thread(target=watch, name="ranks", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def ended_first(others: Sequence[subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """Return rank and exit status of one that has failed, waiting a moment for it; None if none has."""
    until = time.monotonic() + GRACE_SECONDS / 2
    while others and time.monotonic() < until:
        for rank, other in enumerate(others, start=1):
            if status := other.poll():
                return rank, status
        time.sleep(0.05)
    return None


def fault_of(rank: int, status: int) -> BaseException:
    """What the exit status of another rank means for this one."""
    signum = status - 128 if status > 128 else -status
    if signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        return Stopped(signum)
    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return ScvaeDataError(f"rank {rank} has ended ({how}); resume_from=RUN_DIR continues from the last checkpoint")


def fault_behind(error: RuntimeError, ranks: Ranks, others: Sequence[subprocess.Popen[bytes]]) -> BaseException | None:
    """What the end of another rank, behind a connection that was found closed, means for this one; None if none is."""
    if (ended := ended_first(others)) is not None:
        return fault_of(*ended)
    if "Connection" in str(error) or "peer" in str(error):
        return ScvaeDataError(f"rank {ranks.rank}: another rank has ended ({first_line(error)}); its own words say why")
    return None


def end(others: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for the other ranks, and end those that stay."""
    until = time.monotonic() + GRACE_SECONDS
    for other in others:
        try:
            other.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()


class Cluster(ClusterEnvironment):
    """What Lightning asks about the ranks: all have been started."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        """True: Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Where the first rank is."""
        return self.ranks.address

    @property
    def main_port(self) -> int:
        """Where it listens."""
        return self.ranks.port

    @staticmethod
    def detect() -> bool:
        """It is named, never found."""
        return False

    def world_size(self) -> int:
        """Number of ranks."""
        return self.ranks.size

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Our rank."""
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """Our rank on this machine."""
        return self.ranks.local_rank

    def node_rank(self) -> int:
        """Number of this machine."""
        return self.ranks.rank // self.ranks.local_size


def strategy_of(ranks: Ranks, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a Trainer by which its ranks are these; those that the user has set stay."""
    if ranks.size == 1:
        return {"plugins": [Cluster(ranks)]}
    found: dict[str, Any] = {"plugins": [Cluster(ranks)], "devices": ranks.local_size, "use_distributed_sampler": False}
    if trainer.get("strategy") in (None, "auto", "ddp"):
        # Sums over an epoch are each rank's own: those of the first must not replace them.
        found["strategy"] = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    return found
