"""Changes while load runs."""

import threading
import time

# Seconds between changes, and how the weights go up and down.
SHIFTING = 0.1
ROTATING = 1.0
WEIGHTS = [(90, 10), (80, 20), (70, 30), (60, 40), (50, 50), (60, 40), (70, 30), (80, 20)]


class Disturbance:
    """A thread that changes something of a running peer until it is stopped.
    Used by `with`; afterwards `changes` says how often it did."""

    def __init__(self, running, what):
        self.changes = 0
        self.error = None
        self._stop = threading.Event()
        self._running = running
        self._step, self._every = {
            "shifting": (self._shift, SHIFTING),
            "rotating": (self._rotate, ROTATING),
        }[what]
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _shift(self):
        self._running.shift(WEIGHTS[self.changes % len(WEIGHTS)])

    def _rotate(self):
        self._running.rotate()

    def _work(self):
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                self._step()
            except Exception as error:  # what went wrong is told at the end
                self.error = error
                return
            self.changes += 1
            due += self._every
            self._stop.wait(max(0.0, due - time.monotonic()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        if self.error:
            raise self.error
