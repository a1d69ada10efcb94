import unittest

from harness import goals

MIB = 1 << 20


def summary(value):
    return {"median": value, "low": value, "high": value, "values": [value]}


def scenario(name, void=None, **entries):
    """Entries by name; a dict is a summary's medians, of a closed loop."""
    made = {
        key.replace("__", "/"): {
            "failed": 0,
            "summary": {metric: summary(value) for metric, value in medians.items()},
        }
        for key, medians in entries.items()
    }
    return {"name": name, "how": "closed", "void": void, "entries": made}


def rows(*scenarios, **more):
    return list(goals.evaluate({"scenarios": list(scenarios), **more}))


def met(found, figure, scenario_name):
    match = [r for r in found if figure in r["figure"] and r["scenario"] == scenario_name]
    assert len(match) == 1, match
    return match[0]["met"]


class Goals(unittest.TestCase):
    def test_without_results_nothing_is_met_and_nothing_missed(self):
        found = rows()
        self.assertGreater(len(found), 25)
        self.assertEqual({row["met"] for row in found}, {None})

    def test_cpu_is_judged_against_each_peer(self):
        one = scenario("http1-c64", weir={"cpu_us": 38}, nginx={"cpu_us": 34}, envoy={"cpu_us": 90})
        found = rows(one)
        self.assertIs(met(found, "against nginx", "http1-c64"), True)
        self.assertIs(met(found, "against envoy", "http1-c64"), False)
        self.assertIsNone(met(found, "against nginx", "http1-c1"))

    def test_a_bound_itself_is_met(self):
        one = scenario("http1-c64", weir={"cpu_us": 40}, envoy={"cpu_us": 100})
        self.assertIs(met(rows(one), "against envoy", "http1-c64"), True)

    def test_what_is_void_is_neither(self):
        one = scenario("http1-c64", void="moved", weir={"cpu_us": 1}, nginx={"cpu_us": 9})
        self.assertIsNone(met(rows(one), "against nginx", "http1-c64"))

    def test_throughput_must_be_above(self):
        fast = scenario("pair-grpc-16x16", weir={"rps_core": 26}, envoy={"rps_core": 10})
        slow = scenario("pair-grpc-16x16", weir={"rps_core": 24}, envoy={"rps_core": 10})
        self.assertIs(met(rows(fast), "of one core", "pair-grpc-16x16"), True)
        self.assertIs(met(rows(slow), "of one core", "pair-grpc-16x16"), False)

    def test_added_latency(self):
        def entry(p99):
            return {"failed": 0, "latency": {"50%": {"added": {"p99": summary(p99)}}}}

        one = {"name": "latency-pair-grpc", "void": None,
               "entries": {"weir": entry(300), "envoy": entry(500)}}
        self.assertIs(met(rows(one), "at 50%", "latency-pair-grpc"), False)
        one["entries"]["weir"] = entry(-20)
        found = [row for row in rows(one) if row["scenario"] == "latency-pair-grpc"]
        self.assertEqual([row["measured"] for row in found], [None, 0.0, None])

    def test_relay_and_aes_are_added_by_time(self):
        aes = {"seal_bytes_per_second": 4.0, "open_bytes_per_second": 4.0}
        self.assertEqual(goals.allowed(2.0, aes), 1.0)
        self.assertIsNone(goals.allowed(None, aes))
        one = scenario("pair-body-16m", weir={"bytes_per_second": 0.71},
                       relay={"bytes_per_second": 2.0})
        self.assertIs(met(rows(one, aes=aes), "mTLS, bytes/s", "pair-body-16m"), True)

    def test_variants_are_compared_with_each_other(self):
        one = scenario("pair-shifting",
                       weir__steady={"cpu_us": 100}, weir__shifting={"cpu_us": 104})
        found = rows(one)
        self.assertIs(met(found, "while weights change, against", "pair-shifting"), True)
        self.assertIs(met(found, "failed requests", "pair-shifting"), True)
        one["entries"]["weir/shifting"]["failed"] = 1
        self.assertIs(met(rows(one), "failed requests", "pair-shifting"), False)

    def test_footprint_has_units(self):
        memory = {"name": "memory-idle", "entries": {"weir": {"memory": {"rss": 5 * MIB}}}}
        size = {"name": "size", "entries": {"weir": {"bytes": 8_100_000}}}
        idle = {"name": "idle-mtls",
                "entries": {"weir": {"rss_per_1000": 19 * MIB, "after_ratio": 1.6}}}
        found = rows(memory, size, idle)
        self.assertIs(met(found, "resident memory, idle", "memory-idle"), True)
        self.assertIs(met(found, "stripped", "size"), False)
        self.assertIs(met(found, "idle connections", "idle-mtls"), True)
        self.assertIs(met(found, "after a burst", "idle-mtls"), False)


if __name__ == "__main__":
    unittest.main()
