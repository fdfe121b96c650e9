"""Calls in a process of their own: one that hangs, or breaks the device, costs itself only."""

from __future__ import annotations

import multiprocessing
from contextlib import suppress


class Lost(Exception):
    """Why a call has no answer."""


def serve(connection, function, healthy):
    # The end of the other process, or a user's interrupt.
    with suppress(EOFError, KeyboardInterrupt):
        connection.send(function(*connection.recv()))
        while healthy():
            connection.send(function(*connection.recv()))


class Isolated:
    """function(*arguments), from a process that is replaced when it ends, when `healthy` denies after a call, or when
    there is no answer after so many seconds."""

    def __init__(self, function, healthy, seconds: float):
        self.function, self.healthy, self.seconds = function, healthy, seconds
        self.process = None

    def __call__(self, *arguments):
        # The process may have ended itself after the previous call: that is not this call's fault.
        fresh = self.process is None
        try:
            return self.ask(arguments)
        except (EOFError, OSError) as error:
            self.stop()
            if fresh:
                raise Lost(f"the process ended ({type(error).__name__})") from error
        return self(*arguments)

    def ask(self, arguments):
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=serve, args=(theirs, self.function, self.healthy), daemon=True)
            self.process.start()
            theirs.close()
        self.connection.send(arguments)
        if not self.connection.poll(self.seconds):
            self.stop()
            raise Lost(f"no answer within {self.seconds:g} s")
        return self.connection.recv()

    def stop(self):
        if self.process is None:
            return
        self.process.kill()
        # One that waits for a driver ignores even that.
        self.process.join(5)
        self.connection.close()
        self.process = None
