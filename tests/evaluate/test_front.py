"""The Pareto front: one measure in which a point is better makes it better, and equal points are not."""

from __future__ import annotations

from truing.evaluate.front import undominated


def test_a_point_that_is_better_in_any_one_measure_takes_the_other_off_the_front() -> None:
    low, high = (1.0, 0.2, 3.0), (1.0, 0.5, 3.0)
    for turn in range(3):
        one, other = (point[turn:] + point[:turn] for point in (low, high))
        assert undominated([one, other]) == [1] and undominated([other, one]) == [0]


def test_equal_points_stand_together_and_a_trade_keeps_both() -> None:
    assert undominated([(1.0, 1.0), (1.0, 1.0), (0.0, 1.0)]) == [0, 1]
    assert undominated([(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 1.0)]) == [2, 3]
    assert undominated([(1.0, 0.0), (0.0, 1.0)]) == [0, 1] and undominated([]) == []
