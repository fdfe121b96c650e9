"""Trains the demo's network on 1, 2 and 4 processes: median time of a step, and bytes that each process sends in it.

    PYTHONPATH=. python benchmarks/training.py [--batch 512] [--steps 20] [--pooling mixed]

Every process has one thread and its share of the batch; images are random ones of MNIST's size. Bytes are those of the
loopback device (Linux), of this program alone where nothing else talks through it: `unshare -n` sees to that.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import digits  # noqa: E402

DEVICES = Path("/proc/net/dev")
SIDE, WARM_UP = 28, 3


def alone(network: nn.Module) -> nn.Module:
    return network


def sharded(network: nn.Module) -> nn.Module:
    return fully_shard(network, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


ENGINES = {"none": alone, "DistributedDataParallel": DistributedDataParallel, "fully_shard": sharded}


def train(rank: int, count: int, engine: str, options: argparse.Namespace, meeting: str, results) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    torch.manual_seed(0)
    network = ENGINES[engine](digits.Network(digits.POOLINGS[options.pooling], SIDE))
    optimizer = torch.optim.AdamW(network.parameters())
    share = options.batch // count
    images, labels = torch.randn(share, 1, SIDE, SIDE), torch.randint(10, (share,))
    seconds = []
    for step in range(WARM_UP + options.steps):
        if step == WARM_UP:
            dist.barrier()
            sent = bytes_sent()
        started = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    dist.barrier()
    if rank == 0:
        results.put((statistics.median(seconds[WARM_UP:]), (bytes_sent() - sent) / options.steps / count))
    dist.destroy_process_group()


def bytes_sent() -> int:
    """By the loopback device; 0 where that is not known."""
    lines = DEVICES.read_text().splitlines() if DEVICES.exists() else []
    return next((int(line.split()[9]) for line in lines if line.split()[0] == "lo:"), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512, help="images in a step, by all processes together")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pooling", choices=digits.POOLINGS, default="mixed")
    options = parser.parse_args()
    network = digits.Network(digits.POOLINGS[options.pooling], SIDE)
    parameters = sum(p.numel() * p.element_size() for p in network.parameters())
    print(f"{options.pooling}, batch {options.batch}, parameters of {parameters / 1e6:.2f} MB")
    print(f"{'engine':<25}{'processes':>10}{'ms a step':>11}{'images/s':>10}{'MB sent by each':>17}")
    for engine, count in (("none", 1), *((e, n) for e in list(ENGINES)[1:] for n in (2, 4))):
        results = torch.multiprocessing.get_context("spawn").SimpleQueue()
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(train, (count, engine, options, f"{folder}/meeting", results), count)
        seconds, sent = results.get()
        speed = options.batch / seconds
        print(f"{engine:<25}{count:>10}{seconds * 1e3:>11.1f}{speed:>10.0f}{sent / 1e6:>17.2f}", flush=True)


if __name__ == "__main__":
    main()
