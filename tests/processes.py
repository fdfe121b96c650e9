"""Runs a function in several processes that can send each other tensors, and fails where one fails or does not end."""

import datetime
import multiprocessing
import tempfile
import time
import traceback
from multiprocessing.connection import wait

import torch
import torch.distributed as dist

# Forked from a process that has imported torch already, but has no threads that would be missed.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch.distributed.tensor", "torch.distributed.fsdp", "fastpool"])


def in_processes(count, function, *arguments, backend="gloo", seconds=300):
    """Calls function(rank, *arguments) in each; with nccl every process has a device of its own."""
    with tempfile.TemporaryDirectory() as folder:
        running = {}
        for rank in range(count):
            receiver, sender = CONTEXT.Pipe(duplex=False)
            group = (rank, count, backend, f"file://{folder}/meeting", seconds)
            process = CONTEXT.Process(target=_member, args=(sender, group, function, arguments), daemon=True)
            process.start()
            sender.close()
            running[receiver] = process
        processes, end = list(running.values()), time.monotonic() + seconds
        try:
            while running:
                ready = wait(list(running), max(end - time.monotonic(), 0))
                assert ready, f"{len(running)} of {count} processes still ran after {seconds} seconds"
                for receiver in ready:
                    process = running.pop(receiver)
                    try:
                        failure = receiver.recv()
                    except EOFError:
                        process.join()
                        failure = f"a process ended with exit code {process.exitcode}"
                    assert failure is None, failure
        finally:
            for process in processes:
                process.kill()
                process.join()


def _member(sender, group, function, arguments):
    rank, count, backend, meeting, seconds = group
    try:
        torch.set_num_threads(1)
        if backend == "nccl":
            torch.cuda.set_device(rank)
        patience = datetime.timedelta(seconds=seconds)
        dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=count, timeout=patience)
        function(rank, *arguments)
        dist.destroy_process_group()
        sender.send(None)
    except BaseException:
        sender.send(f"process {rank}: {traceback.format_exc()}")
