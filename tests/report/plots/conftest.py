"""Every figure of these tests is drawn in the style of reports."""

import pytest

from nas.report.plots.style import figure_style


@pytest.fixture(autouse=True)
def _style():
    with figure_style():
        yield
