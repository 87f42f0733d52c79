import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nas.runs.pareto import front_indices

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


def test_equal_points_keep_the_first():
    assert front_indices([2, 1, 1, 2], [70, 60, 60, 70]).tolist() == [1, 0]


def test_nan_is_never_on_the_front():
    nan = float("nan")
    assert front_indices([1, nan, 3, 4], [50, 99, nan, 60]).tolist() == [0, 3]


def test_no_points():
    assert front_indices([], []).tolist() == []
