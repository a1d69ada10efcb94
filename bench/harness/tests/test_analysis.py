import unittest
import xml.dom.minidom

from harness import analysis


def outcome(rate, low, high, median=7, p95=14):
    return {
        "rolled_back": 1, "promoted": 2, "undecided": 0,
        "wrong": {"rate": rate, "low": low, "high": high},
        "seconds": {"median": median, "p95": p95},
        "canary_requests": {"median": 700, "p95": 1400},
    }


def scenario(weir, stated=0.01):
    return {
        "name": "good", "about": "the same", "wrong_is": "rolled_back", "stated": stated,
        "canary_per_second": 100.0, "limit": 3600, "weir": weir,
        "naive": outcome(1.0, 0.99, 1.0, median=600, p95=None),
    }


def report(*scenarios):
    return {"runs": 10_000, "scenarios": list(scenarios)}


class Kept(unittest.TestCase):
    def test_more_than_stated_beyond_chance_is_broken(self):
        kept = scenario(outcome(0.011, 0.0092, 0.0132))
        self.assertEqual(analysis.broken(report(kept)), [])
        worse = scenario(outcome(0.02, 0.0175, 0.0229))
        self.assertEqual(analysis.broken(report(kept, worse)), ["good"])

    def test_where_nothing_is_stated_nothing_is_broken(self):
        none = scenario(outcome(0.2, 0.19, 0.21), stated=None)
        self.assertEqual(analysis.broken(report(none)), [])


class Shown(unittest.TestCase):
    def test_a_row_has_all_figures(self):
        row = analysis.table(report(scenario(outcome(0.0012, 0.0007, 0.0021))))[2]
        self.assertEqual(
            row,
            "| `good` | rolled back | <= 1 % | 0.12 % [0.07 %..0.21 %] | 7 s, 14 s | "
            "700, 1,400 | 100 % | 10 min |",
        )

    def test_a_plot_is_xml_also_without_verdicts(self):
        never = scenario(outcome(0.0, 0.0, 0.0004, median=None, p95=None))
        xml.dom.minidom.parseString(analysis.draw(report(never, scenario(outcome(0, 0, 0.1)))))


if __name__ == "__main__":
    unittest.main()
