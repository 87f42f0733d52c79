import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.runs.pareto import front_indices, hypervolume

# Few values, so that ties in one goal and in both are common.
COARSE = st.integers(0, 6).map(float)
FINE = st.floats(0.1, 100, allow_nan=False)
POINTS = st.lists(st.tuples(COARSE, COARSE), max_size=30) | st.lists(st.tuples(FINE, FINE), max_size=30)


def arrays(points: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(points, float).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(POINTS)
def test_front_is_what_brute_force_finds(points):
    expected = [
        i
        for i, point in enumerate(points)
        if not any(beats(other, point) for other in points) and point not in points[:i]
    ]
    found = front_indices(*arrays(points))
    assert sorted(found) == expected


@given(POINTS)
def test_front_runs_from_fast_to_accurate(points):
    latency, top1 = arrays(points)
    front = front_indices(latency, top1)
    assert np.all(np.diff(latency[front]) > 0)
    assert np.all(np.diff(top1[front]) > 0)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_hypervolume_counts_the_beaten_cells(points):
    """On a grid of whole numbers the area is the number of unit cells that some point covers."""
    reference = (5, 1)
    cells = {
        (x, y) for latency, top1 in points for x in range(latency, reference[0]) for y in range(reference[1], top1)
    }
    assert hypervolume(*arrays(points), reference) == len(cells)


@given(POINTS)
def test_hypervolume_is_that_of_the_front(points):
    latency, top1 = arrays(points)
    front = front_indices(latency, top1)
    reference = (50.0, 2.0)
    assert hypervolume(latency, top1, reference) == pytest.approx(hypervolume(latency[front], top1[front], reference))


def test_equal_points_keep_the_first():
    assert front_indices([2, 1, 1, 2], [70, 60, 60, 70]).tolist() == [1, 0]


def test_nan_is_never_on_the_front():
    nan = float("nan")
    assert front_indices([1, nan, 3, 4], [50, 99, nan, 60]).tolist() == [0, 3]
    assert hypervolume([1, nan], [50, 99], (2, 40)) == 10


def test_no_points():
    assert front_indices([], []).tolist() == []
    assert hypervolume([], [], (1, 1)) == 0
