"""With real processes; skipped where weir-bench or nginx is not there."""

import contextlib
import io
import json
import os
import pathlib
import tempfile
import unittest

from harness import bench, cli, closed, load, procs, scenarios, tools
from harness.peer import Site

TOOLS = tools.Tools()
READY = all(TOOLS[name] for name in ("weir-bench", "nginx", "taskset"))


def quiet(run, *arguments):
    """What `run` gives, without what it says."""
    with contextlib.redirect_stderr(io.StringIO()):
        return run(*arguments)


@unittest.skipUnless(READY, "weir-bench or nginx is not there")
class Windows(unittest.TestCase):
    def options(self):
        return bench.Options(rounds=1, seconds=0.2, warmup=0.1, control_seconds=0.1)

    def test_a_run_leaves_results_and_no_process(self):
        words = ["--scenario", "http1-c1", "--peers", "nginx", "--rounds", "2", "--seconds", "0.2"]
        with tempfile.TemporaryDirectory() as where, contextlib.redirect_stdout(io.StringIO()):
            code = quiet(cli.main, [*words, "--out", where])
            results = json.loads((pathlib.Path(where) / "results.json").read_text())
        self.assertEqual((code, results["failures"]), (0, []))
        entry = results["scenarios"][0]["entries"]["nginx"]
        self.assertEqual(len(entry["rounds"]), 2)
        self.assertGreater(entry["summary"]["cpu_us"]["median"], 0)
        self.assertEqual(procs.family(os.getpid()), [os.getpid()])

    def test_wrong_answers_are_failures_of_the_run(self):
        scenario = scenarios.chosen(["http1-c1"])[0]
        with bench.Bench(TOOLS, self.options()) as run:
            place = run.place("test")
            listen = f"127.0.0.1:{procs.free_port()}"
            command = [TOOLS["weir-bench"], "upstream", "--listen", listen, "--protocol", "http1"]
            command += ["--body-bytes", "64", "--status-every", "3", "--corrupt-every", "4"]
            upstream = procs.Process("upstream", command, procs.LOAD_CORE, place)
            upstream.wait_listening(listen)
            running = run.peers["nginx"].start(Site("hop", "http1", {"v1": listen}), place)
            command = load.arguments(scenario, running.target)
            entry = bench.Entry("nginx", "nginx", "", running, command)
            quiet(closed.one_window, run, scenario, entry)
        self.assertGreater(entry.failed, 0)
        self.assertIn("status 503", entry.errors)
        self.assertGreater(len(entry.errors), 1)
        self.assertEqual(len(run.failures), 1)

    def test_what_does_not_start_is_told_with_its_log(self):
        with tempfile.TemporaryDirectory() as where:
            process = procs.Process("nginx", [TOOLS["nginx"], "-c", "/nowhere"], 0, where)
            with self.assertRaises(procs.Failed) as raised:
                process.wait_listening(f"127.0.0.1:{procs.free_port()}")
            process.stop()
        self.assertIn("/nowhere", str(raised.exception))


if __name__ == "__main__":
    unittest.main()
