"""Labels, groups and seeds for the laws of splits."""

import numpy as np
from hypothesis import strategies as st

seeds = st.integers(0, 2**63 - 1)


@st.composite
def grouped(draw, homogeneous=False):
    """Labels and groups of up to 120 patches; homogeneous: each group of one class."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=30))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    classes = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = rng.integers(0, classes, len(sizes))[groups] if homogeneous else rng.integers(0, classes, len(groups))
    names = rng.permutation(1000)[: len(sizes)]
    order = rng.permutation(len(groups))
    return labels[order], names[groups][order]
