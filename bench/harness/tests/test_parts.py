import pathlib
import tempfile
import unittest
import xml.dom.minidom

from harness import cli, load, plot, report, scenarios, stats, syscalls, template

STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.060000          10      6000           sendto
 30.00    0.030000           5      6000      3000 recvfrom
 10.00    0.010000           3      3000           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.100000           6     15000      3000 total
"""


class Templates(unittest.TestCase):
    def test_names_are_filled_and_lines_keep_their_indent(self):
        text = "a @ONE@\n  @MANY@\n"
        filled = template.fill(text, {"ONE": 1, "MANY": "x:\n  y"})
        self.assertEqual(filled, "a 1\n  x:\n    y\n")

    def test_a_name_without_a_value_is_an_error(self):
        with self.assertRaises(KeyError):
            template.fill("@PORT@", {})


class Strace(unittest.TestCase):
    def test_calls_are_read_with_and_without_errors(self):
        calls = syscalls.parse(STRACE)
        self.assertEqual(calls, {"sendto": 6000, "recvfrom": 6000, "epoll_wait": 3000})


class Figures(unittest.TestCase):
    def result(self, **more):
        return {
            "requests": 1000, "failed": 0, "errors": {}, "seconds": 2.0, "bytes": 4000,
            "latency_us": {"p50": 1, "p99": 2, "p99_9": 3},
            "upstreams": {"v1": 900, "v2": 100},
            "pids": {
                "1": {"cpu_seconds": 0.03, "user_seconds": 0.01, "system_seconds": 0.03,
                      "voluntary_switches": 100, "involuntary_switches": 0},
                "2": {"cpu_seconds": 0.01, "user_seconds": 0.0, "system_seconds": 0.0,
                      "voluntary_switches": 100, "involuntary_switches": 50},
            },
            **more,
        }

    def test_cpu_is_summed_over_the_proxies(self):
        found = load.figures(self.result())
        self.assertAlmostEqual(found["cpu_us"], 40.0)
        self.assertAlmostEqual(found["user_us"], 10.0)
        self.assertAlmostEqual(found["system_us"], 30.0)
        self.assertAlmostEqual(found["rps"], 500.0)
        self.assertAlmostEqual(found["rps_core"], 25000.0)
        self.assertAlmostEqual(found["busy"], 0.02)
        self.assertAlmostEqual(found["switches"], 0.25)
        self.assertAlmostEqual(found["v2_share"], 0.1)

    def test_nothing_answered_is_no_figure(self):
        self.assertIsNone(load.figures(self.result(requests=0)))

    def test_without_proxies_there_is_no_cpu(self):
        self.assertNotIn("cpu_us", load.figures(self.result(pids={})))


class Scenarios(unittest.TestCase):
    def test_globs_choose_and_a_wrong_one_is_told(self):
        self.assertEqual([s.name for s in scenarios.chosen(["grpc-1*"])],
                         ["grpc-1x1", "grpc-16x16"])
        self.assertEqual(len(scenarios.chosen(None)), len(scenarios.ALL))
        with self.assertRaises(ValueError):
            scenarios.chosen(["http3*"])

    def test_names_are_unique(self):
        names = [scenario.name for scenario in scenarios.ALL]
        self.assertEqual(len(names), len(set(names)))


class CommandLine(unittest.TestCase):
    def options(self, *words):
        return cli.options(cli.parser().parse_args(words))

    def test_quick_is_shorter_and_can_be_overruled(self):
        self.assertEqual(self.options().rounds, 10)
        self.assertEqual(self.options("--quick").rounds, 4)
        self.assertEqual(self.options("--quick", "--rounds", "2").rounds, 2)

    def test_wrong_values_are_refused(self):
        for words in (["--peers", "apache"], ["--rounds", "0"], ["--seconds", "0"]):
            with self.assertRaises(ValueError):
                self.options(*words)


def closed(failed=0, void=None):
    rounds = [{"cpu_us": 30.0 + i, "rps": 1000.0, "p99": 5.0} for i in range(4)]
    metrics = {key: stats.summary([r[key] for r in rounds]) for key in rounds[0]}
    entry = {"peer": "weir", "variant": "", "failed": failed, "errors": {"status 503": failed},
             "notes": [], "summary": metrics, "rounds": rounds, "syscalls": None}
    return {"name": "http1-c64", "title": "HTTP/1.1 <64>", "how": "closed", "unit": "",
            "control": [], "void": void, "absent": {"envoy": "envoy not found"},
            "entries": {"weir": entry}}


class Reports(unittest.TestCase):
    def test_a_table_has_a_column_for_each_peer(self):
        text = report.scenario_table(closed())
        self.assertIn("31.5 [30.0..33.0]", text)
        self.assertIn("envoy: envoy not found", text)
        self.assertNotIn("FAILED", text)

    def test_failures_and_void_runs_cannot_be_missed(self):
        text = report.scenario_table(closed(failed=3, void="the control moved"))
        self.assertIn("3 failed", text)
        self.assertIn("VOID: the control moved", text)

    def test_numbers_have_three_digits(self):
        shown = [report.number(value) for value in (0.1234, 1.234, 12.34, 123.4, 12345, None)]
        self.assertEqual(shown, ["0.123", "1.23", "12.3", "123", "12,345", "-"])

    def test_plots_are_well_formed(self):
        drawn = plot.draw(closed(void="moved"))
        xml.dom.minidom.parseString(drawn)
        self.assertIn("VOID", drawn)
        empty = closed()
        empty["entries"] = {}
        self.assertIsNone(plot.draw(empty))

    def test_latency_is_drawn_as_lines(self):
        def at(value):
            one = {key: stats.summary([value]) for key in ("p50", "p99", "p99_9")}
            return {"added": one, "measured": one}

        entry = {"peer": "weir", "failed": 0, "errors": {}, "notes": [],
                 "latency": {"25%": at(10.0), "50%": at(-2.0)}}
        found = {"name": "latency-http1", "title": "t", "how": "latency", "void": None,
                 "absent": {}, "rates": {"25%": 100, "50%": 200}, "entries": {"weir": entry}}
        xml.dom.minidom.parseString(plot.draw(found))
        self.assertIn("p99 us at 25% (100/s)", report.scenario_table(found))

    def test_results_are_written_with_their_plots(self):
        with tempfile.TemporaryDirectory() as name:
            cli.save({"scenarios": [closed()]}, pathlib.Path(name))
            self.assertEqual(sorted(p.name for p in pathlib.Path(name).iterdir()),
                             ["http1-c64.svg", "results.json"])


if __name__ == "__main__":
    unittest.main()
