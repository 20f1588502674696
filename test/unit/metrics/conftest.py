"""What pictures show, for tests of what is drawn."""

from contextlib import contextmanager

import pytest

from speechkit.metrics import plots, plots_fusion, plots_pretraining, plots_transfer


@pytest.fixture
def axes(monkeypatch):
    """What is drawn on each axes of the last picture."""
    kept = []

    @contextmanager
    def watched(*args, **options):
        with plots.figure(*args, **options) as found:
            yield found
            kept[:] = [
                {
                    "lines": {line.get_label(): line.get_xydata() for line in each.lines},
                    "images": [(image.get_array(), image.get_extent()) for image in each.images],
                    "texts": [text.get_text() for text in each.texts],
                    "x": [tick.get_text() for tick in each.get_xticklabels()],
                    "y": [tick.get_text() for tick in each.get_yticklabels()],
                    "title": each.get_title(loc="left"),
                }
                for each in found
            ]

    for module in (plots_fusion, plots_pretraining, plots_transfer):
        monkeypatch.setattr(module, "figure", watched)
    return kept
