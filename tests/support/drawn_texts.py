"""Find the texts of a figure, and check that they lie inside it and apart from each other."""

import itertools
from collections.abc import Iterator

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def boxes_of_texts(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    """Yield everything written in a figure, with its box in pixels."""
    figure.draw_without_rendering()
    ticks = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    hidden = {id(text) for axis in ticks for text in axis.findobj(Text)} - {
        id(text) for axis in ticks for text in _shown_on_axis(axis)
    }
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            # An annotation's own box would hold its line to the point too.
            yield text.get_text(), Text.get_window_extent(text)


def _shown_on_axis(axis: Axis) -> Iterator[Text]:
    low, high = sorted(axis.get_view_interval())
    yield axis.label
    for tick in axis.get_major_ticks():
        if axis.axes.axison and low <= tick.get_loc() <= high:
            yield tick.label1


def check_texts(figure: Figure) -> None:
    """Check that the texts of a figure lie on its page and cover no other text."""
    texts = list(boxes_of_texts(figure))
    assert texts
    page = figure.bbox
    for text, box in texts:
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert inside, f"{text!r} leaves the page: {box} is not in {page}"
    for (text, box), (other, other_box) in itertools.combinations(texts, 2):
        assert not box.padded(-1).overlaps(other_box.padded(-1)), f"{text!r} covers {other!r}"
