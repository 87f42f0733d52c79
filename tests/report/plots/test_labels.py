import numpy as np
from matplotlib.figure import Figure
from support.drawn_texts import check_texts

from nas.report.plots.labels import Label, place_labels


def test_crowded_labels_are_placed_apart():
    rng = np.random.default_rng(0)
    figure = Figure(figsize=(12, 7))
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
    labels = [Label(x, y, f"network number {n}") for n, (x, y) in enumerate(rng.uniform(0.2, 0.8, (25, 2)))]
    place_labels(axes, labels, taken=[], lines=np.empty((0, 2)), size=9)
    assert len(axes.texts) == 25
    check_texts(figure)
