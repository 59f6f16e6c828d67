"""Counts in words."""

import pytest

from shards.amount import amount


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 slides"), (1, "1 slide"), (2, "2 slides"), (1500, "1,500 slides")]
)
def test_one_is_no_plural(count, said):
    assert amount(count, "slides") == said
