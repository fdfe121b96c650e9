"""Random calls of every public function against the reference: `make fuzz`, or

    python tests/fuzz.py --cases 1000000 --seed 1 --jobs 2
    python tests/fuzz.py --seed 1 --case 4711

A trial that fails prints the second line. It belongs in KEPT, which the ordinary tests run as well, or, better, in
tests/cases.py as the row that is printed with it: a trial of KEPT is another one when what makes trials is changed.
"""

import argparse
import json
import mmap
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
# Processes that wait by spinning keep each other from running.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import fuzz_checks
import fuzz_expected
import fuzz_refusals
import fuzz_trials
import torch

# (seed, case): what was wrong.
KEPT: dict[tuple[int, int], str] = {}

REFUSED_SHARE = 0.1  # of trials, with an invalid argument
REPORT_SECONDS, SILENT_SECONDS = 60, 300
MOST_PRINTED = 40


def attempt(seed, number):
    """-> None, or what failed and why"""
    trial = fuzz_trials.random_trial(seed, number)
    choose = random.Random(f"paths of {seed} {number}")
    refused = choose.random() < REFUSED_SHARE
    try:
        if refused:
            fuzz_expected.MET["refused"] += 1
            fuzz_refusals.check(trial, choose)
        else:
            fuzz_checks.check(trial, choose)
    except Exception as error:
        where = "" if isinstance(error, AssertionError) else f" at {last_line_of(error)}"
        message = f"{type(error).__name__}: {error}{where}" if where else str(error)
        row = None if refused else trial.row()
        return f"{command(seed, number)}\n    {'' if refused else f'{trial}: '}{message}" + (
            f"\n    {row}" if row else ""
        )
    return None


def last_line_of(error):
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def command(seed, number):
    return f"python tests/fuzz.py --seed {seed} --case {number}"


def prepare():
    """In deterministic mode torch fills fresh tensors with NaN, so that an element nobody writes shows."""
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(1)


def work(arguments):
    """A worker: its share of the cases, the number of the one at hand in a file that outlives a crash."""
    prepare()
    with open(arguments.state, "r+b") as file:
        at_hand = mmap.mmap(file.fileno(), 8)
    number, last_report = arguments.first, time.monotonic()
    done = 0

    def report():
        print(json.dumps({"met": fuzz_expected.MET, "cases": done}), flush=True)
        fuzz_expected.MET.clear()

    while number < arguments.cases and time.time() < arguments.until:
        at_hand[:] = struct.pack("<q", number)
        failure = attempt(arguments.seed, number)
        done += 1
        if failure:
            print(json.dumps({"failure": failure}), flush=True)
        if time.monotonic() - last_report > 5:
            report()
            done, last_report = 0, time.monotonic()
        number += arguments.step
    report()


class Worker:
    """A process that tries every step-th case, and is begun anew behind a case that ends it."""

    def __init__(self, arguments, first, step, folder):
        self.arguments, self.step = arguments, step
        self.state, self.output = folder / f"{first}.case", folder / f"{first}.lines"
        self.start(first)

    def start(self, first):
        self.state.write_bytes(struct.pack("<q", first))
        options = {
            "seed": self.arguments.seed,
            "cases": self.arguments.cases,
            "until": self.arguments.until,
            "first": first,
            "step": self.step,
            "state": self.state,
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with open(self.output, "w") as lines:
            self.process = subprocess.Popen([sys.executable, __file__, *flags], stdout=lines)
        self.read, self.unfinished, self.heard = open(self.output), "", time.monotonic()

    def lines(self):
        """-> what it has printed since the last call"""
        *found, self.unfinished = (self.unfinished + self.read.read()).split("\n")
        if found:
            self.heard = time.monotonic()
        return [json.loads(line) for line in found]

    def is_silent(self):
        return time.monotonic() - self.heard > SILENT_SECONDS

    def stop(self):
        self.process.kill()
        self.process.wait()

    def case(self):
        """The number of the case at hand."""
        return struct.unpack("<q", self.state.read_bytes())[0]


def supervise(arguments, folder):
    """-> the number of failures"""
    met, cases, failures, began = Counter(), 0, 0, time.monotonic()
    running = [Worker(arguments, first, arguments.jobs, folder) for first in range(arguments.jobs)]
    next_report = began + REPORT_SECONDS

    def fail(failure):
        nonlocal failures
        failures += 1
        if failures <= MOST_PRINTED:
            print(failure, flush=True)

    while running:
        time.sleep(0.2)
        for worker in list(running):
            ended = worker.process.poll()
            for line in worker.lines():
                if "failure" in line:
                    fail(line["failure"])
                else:
                    cases += line["cases"]
                    met.update(line["met"])
            if ended is None and not worker.is_silent():
                continue
            if ended is None:
                worker.stop()
            if ended != 0:
                how = f"silent for {SILENT_SECONDS} s" if ended is None else f"ended by {ended}"
                fail(f"{command(arguments.seed, worker.case())}\n    the process was {how}")
            if ended is None or ended < 0:  # a signal
                worker.start(worker.case() + worker.step)
            else:
                running.remove(worker)
        if time.monotonic() > next_report:
            next_report += REPORT_SECONDS
            print(f"{time.monotonic() - began:.0f} s: {cases} cases, {failures} failures", flush=True)
    print_summary(arguments.seed, cases, failures, met, time.monotonic() - began)
    return failures


def print_summary(seed, cases, failures, met, seconds):
    print(f"\nseed {seed}: {cases} cases in {seconds:.0f} s, {failures} failures")
    for group in (
        "function",
        "kind",
        "dtype",
        "layout",
        "pattern",
        "gradient",
        "gradient layout",
        "element",
        "path",
        None,
    ):
        of_group = {n: c for n, c in met.items() if (n.split(": ")[0] if ": " in n else None) == group}
        entries = [f"{name.removeprefix(f'{group}: ')} {count}" for name, count in sorted(of_group.items())]
        print(f"{group or 'others'}: {', '.join(entries)}")


def parsed():
    parser = argparse.ArgumentParser(description="Random calls of every public function against the reference.")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the clock")
    parser.add_argument("--case", type=int, help="try this one alone")
    parser.add_argument("--cases", type=int, help="how many; default: as many as the minutes allow")
    parser.add_argument("--minutes", type=float, default=60, help="unless --cases is given")
    parser.add_argument("--jobs", type=int, default=1)
    # Between the parent and its workers.
    for name, kind in (("first", int), ("step", int), ("until", float), ("state", Path)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    arguments = parsed()
    if arguments.state:
        work(arguments)
        return 0
    if arguments.case is not None:
        prepare()
        trial = fuzz_trials.random_trial(arguments.seed, arguments.case)
        failure = attempt(arguments.seed, arguments.case)
        print(failure or f"{trial}: no failure")
        return failure is not None
    arguments.until = time.time() + 60 * arguments.minutes if arguments.cases is None else 1e12
    arguments.cases = arguments.cases or 2**62
    print(f"seed {arguments.seed}, {arguments.jobs} jobs, CPU capability {fuzz_checks.BEST}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        return supervise(arguments, Path(folder)) > 0


if __name__ == "__main__":
    sys.exit(main())
