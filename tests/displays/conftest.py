import matplotlib as mpl
import pytest
from helpers import TINY
from layouts import LAYOUTS
from matplotlib import pyplot as plt

from skvae import ConvVAE

mpl.use("agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def layout(request):
    """Fitted ConvVAE, the images it was fitted on, and the shape of one of them."""
    X, image_shape = request.param
    return ConvVAE(**TINY).fit(X), X, image_shape
