"""Processes: started on one core, watched, and always stopped."""

import atexit
import ctypes
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import time

# Where the proxies are, and where everything else is.
PROXY_CORE = 0
LOAD_CORE = 1 if (os.cpu_count() or 1) > 1 else 0
# For a process to listen, or to end.
DEADLINE = 20.0
POLL = 0.005

_libc = ctypes.CDLL(None, use_errno=True)
_running = []


class Failed(Exception):
    """Something that was started does not do what it should."""


def _end_with_parent():
    pr_set_pdeathsig = 1
    # Not SIGKILL: a master must have the time to end its workers.
    _libc.prctl(pr_set_pdeathsig, signal.SIGTERM)


class Process:
    """A process of ours. Its output goes to `DIR/NAME.log`."""

    def __init__(self, name, command, core, directory, env=None):
        self.name = name
        self.log = pathlib.Path(directory) / f"{name}.log"
        command = [str(part) for part in command]
        if pin := shutil.which("taskset"):
            # It replaces itself by the command: the process id stays.
            command = [pin, "-c", str(core), *command]
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                preexec_fn=_end_with_parent,
            )
        self.pid = self.child.pid
        _running.append(self)

    def alive(self):
        """Whether it still runs."""
        return self.child.poll() is None

    def pids(self):
        """Its process id and those of its children."""
        return family(self.pid)

    def tail(self, lines=8):
        """The end of what it said."""
        text = self.log.read_text(errors="replace").strip().splitlines()
        return "\n".join(text[-lines:]) or "(it said nothing)"

    def failed(self, what):
        """An error that quotes its log."""
        return Failed(f"{self.name}: {what}; its log ends with:\n{self.tail()}")

    def stop(self):
        """SIGTERM, and SIGKILL after two seconds."""
        if self in _running:
            _running.remove(self)
        if self.alive():
            self.child.terminate()
            try:
                self.child.wait(2)
            except subprocess.TimeoutExpired:
                self.child.kill()
        self.child.wait()

    def wait_until(self, ready, what, deadline=DEADLINE):
        """Waits until `ready()` says so, and gives what it said.

        Raises Failed when the process ends or `deadline` seconds pass first.
        """
        end = time.monotonic() + deadline
        while True:
            answer = ready()
            if answer:
                return answer
            if not self.alive():
                raise self.failed(f"ended with {self.child.returncode} before {what}")
            if time.monotonic() > end:
                raise self.failed(f"not {what} after {deadline:.0f} s")
            time.sleep(POLL)

    def wait_listening(self, address):
        """Waits until the address takes connections."""
        return self.wait_until(lambda: listening(address), f"listening on {address}")


def stop_all():
    """Stops every process that was started and not stopped."""
    for process in list(reversed(_running)):
        process.stop()


atexit.register(stop_all)


def family(pid):
    """A process and all below it."""
    found = [pid]
    for task in _tasks(pid):
        try:
            text = (task / "children").read_text()
        except OSError:
            continue
        for child in text.split():
            found.extend(family(int(child)))
    return found


def _tasks(pid):
    try:
        return list(pathlib.Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def memory(pids):
    """Resident bytes of processes: {"rss": all, "pss": shared ones divided}."""
    total = {"rss": 0, "pss": 0}
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            key = line.split(":")[0].lower()
            if key in total:
                total[key] += int(line.split()[1]) * 1024
    return total


def cpu_seconds(pids):
    """CPU that processes have used, by the scheduler's account of their threads.
    Of threads that have ended since nothing is known."""
    total = 0
    for pid in pids:
        for task in _tasks(pid):
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def listening(address):
    """Whether a TCP connection to `IP:PORT` can be made."""
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def free_port():
    """A port that nobody has now, outside of those that clients are given."""
    for _ in range(1000):
        port = random.randrange(12_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no free port between 12000 and 30000")
