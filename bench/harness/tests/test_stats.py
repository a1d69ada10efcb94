import unittest

from harness import stats


class Quantiles(unittest.TestCase):
    def test_medians_of_odd_and_even_counts(self):
        self.assertEqual(stats.median([3, 1, 2]), 2)
        self.assertEqual(stats.median([4, 1, 2, 3]), 2.5)

    def test_a_quantile_is_interpolated(self):
        self.assertAlmostEqual(stats.quantile([0, 10], 0.25), 2.5)
        self.assertEqual(stats.quantile([7], 0.99), 7)
        with self.assertRaises(ValueError):
            stats.quantile([], 0.5)


class Bootstrap(unittest.TestCase):
    def test_the_interval_holds_the_median_and_is_the_same_each_time(self):
        values = [10.0, 11.0, 9.5, 10.2, 10.4, 12.0, 9.9, 10.1, 10.3, 10.0]
        low, high = stats.bootstrap(values)
        self.assertLessEqual(low, stats.median(values))
        self.assertGreaterEqual(high, stats.median(values))
        self.assertGreaterEqual(low, min(values))
        self.assertLessEqual(high, max(values))
        self.assertEqual(stats.bootstrap(values), (low, high))

    def test_more_rounds_make_it_narrower(self):
        few = [10, 12, 11, 9, 13, 8, 11, 10]
        low, high = stats.bootstrap(few)
        more_low, more_high = stats.bootstrap(few * 20)
        self.assertLess(more_high - more_low, high - low)

    def test_one_value_has_no_width(self):
        self.assertEqual(stats.bootstrap([4.0]), (4.0, 4.0))

    def test_a_summary_leaves_out_what_is_missing(self):
        self.assertIsNone(stats.summary([None]))
        self.assertEqual(stats.summary([None, 2.0, 4.0])["median"], 3.0)

    def test_a_known_interval(self):
        # Of 0 and 1 in equal parts, both ends are reached.
        self.assertEqual(stats.bootstrap([0, 1]), (0, 1))


class Order(unittest.TestCase):
    def test_rounds_go_forward_backward_backward_forward(self):
        rounds = stats.abba(["a", "b", "c"], 6)
        firsts = [names[0] for names in rounds]
        self.assertEqual(firsts, ["a", "c", "c", "a", "a", "c"])
        for names in rounds:
            self.assertEqual(sorted(names), ["a", "b", "c"])

    def test_places_even_out_over_four_rounds(self):
        rounds = stats.abba(["a", "b"], 4)
        self.assertEqual(sum(names.index("a") for names in rounds), 2)


class Control(unittest.TestCase):
    def test_a_quiet_control_is_not_void(self):
        self.assertIsNone(stats.void([33, 33.5, 32.8, 33.1, 33.0, 33.4]))

    def test_a_drift_is_void(self):
        # The quartiles alone are 10 % apart.
        self.assertIn("moved by 13%", stats.void([30, 30, 30, 30, 34, 34]))

    def test_unrest_is_void(self):
        self.assertIsNotNone(stats.void([30, 36, 30, 36, 30, 36, 30, 36]))

    def test_one_outlier_is_not(self):
        self.assertIsNone(stats.void([30, 30.1, 30.2, 50, 30, 30.1, 30.2, 30]))

    def test_no_control_is_no_movement(self):
        self.assertEqual(stats.movement([]), 0.0)


if __name__ == "__main__":
    unittest.main()
