"""The stream of objects out of a long JSON array, wherever its text is cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.segment.items import read_items

numbers = st.one_of(st.integers(-9, 10**6), st.floats(-1e6, 1e6, allow_nan=False))
position = st.tuples(numbers, numbers).map(list)
arrays = st.recursive(st.lists(position, max_size=4), lambda a: st.lists(a, max_size=3))
strings = st.text(st.sampled_from('ab"\\{}[],: µ\n'), max_size=12)
values = st.one_of(strings, st.none(), st.booleans(), numbers, st.lists(numbers, max_size=3))
others = st.dictionaries(strings, values, max_size=3)
objects = st.fixed_dictionaries(
    {"p": others}, optional={"coordinates": arrays, "contour": arrays, "q": others}
)


def flat(value) -> list:
    """Return the positions in a nested array."""
    if value and isinstance(value[0], int | float):
        return [value]
    return [position for part in value for position in flat(part)]


@given(st.lists(objects, max_size=5), st.integers(1, 200), st.sampled_from([None, 1]), others)
def test_items_do_not_depend_on_where_the_text_is_cut(items, size, indent, header):
    root = {f"h{k}": v for k, v in header.items()} | {"features": items, "z": 1}
    text = json.dumps(root, indent=indent).encode()
    seen = []
    for block in read_items(text[i : i + size] for i in range(0, len(text), size)):
        for item in block.items:
            for key in item.keys() & {"coordinates", "contour"}:
                a = item[key] - block.base
                item[key] = block.xy[block.start[a] : block.start[a + 1]].tolist()
            seen.append(item)
    expected = [
        {k: flat(v) if k in ("coordinates", "contour") else v for k, v in item.items()}
        for item in items
    ]
    assert seen == expected


def test_a_feature_of_many_pieces_is_whole():
    """One MultiPolygon that is far longer than what is read at once."""
    polygons = [[[[i, 0], [i + 1, 0], [i, i], [i, 0]]] for i in range(5000)]
    for indent in (None, 4):
        text = json.dumps([{"coordinates": polygons, "a": {"b": 1}}], indent=indent).encode()
        blocks = list(read_items(text[i : i + 4096] for i in range(0, len(text), 4096)))
        assert [block.items for block in blocks] == [[{"coordinates": 0, "a": {"b": 1}}]]
        assert blocks[0].xy.tolist() == flat(polygons)
        assert blocks[0].closes.tolist() == [1, 1, 1, 3] * 4999 + [1, 1, 1, 4]


def test_positions_of_three_numbers_lose_the_third_and_of_four_are_refused():
    (block,) = read_items([b'[{"coordinates": [[1, 2, 3], [4, 5, 6]]}]'])
    assert block.xy.tolist() == [[1, 2], [4, 5]]
    with pytest.raises(ValueError, match="its positions have 4 coordinates"):
        list(read_items([b'[{"coordinates": [[1, 2, 3, 4]]}]']))


@pytest.mark.parametrize("text", [b"[]", b' { "features" : [ ] , "type": "x"} ', b"[\n]"])
def test_an_empty_array_has_no_blocks(text):
    assert list(read_items([text])) == []
