"""Tables of names: whatever goes out comes back, and what does not fit is named."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.pretrained import Join, Rearrange, Rename, Split, Stack, Table, Tie, under

sizes = st.integers(1, 4)


@st.composite
def rules_with_tensors(draw):
    """Rules of every kind in any order, and tensors of ours that they cover."""
    rules, ours = [], {}
    kinds = draw(st.lists(st.sampled_from(["rename", "form", "split", "sized split", "join", "stack"]), min_size=1))
    for number, kind in enumerate(kinds):
        height, width = draw(sizes), draw(sizes)
        layers = draw(st.integers(1, 3))
        dim = draw(st.sampled_from([0, 1, -1]))
        place = f"p{number}.{{layer}}"
        if kind == "rename":
            rules.append(Rename(f"{place}.theirs", f"{place}.ours"))
            shapes = {"ours": (height, width)}
        elif kind == "form":
            form = Rearrange("a b c -> c (b a)", a=height, b=width)
            rules.append(Rename(f"{place}.theirs", f"{place}.ours", form))
            shapes = {"ours": (draw(sizes), width * height)}
        elif kind == "split":
            rules.append(Split(f"{place}.theirs", [f"{place}.one", f"{place}.two"], dim))
            shapes = {"one": (height, width), "two": (height, width)}
        elif kind == "sized split":
            one, two = draw(sizes), draw(sizes)
            rules.append(Split(f"{place}.theirs", [f"{place}.one", f"{place}.two"], 1, sizes=[one, two]))
            shapes = {"one": (height, one), "two": (height, two)}
        elif kind == "join":
            rules.append(Join([f"{place}.a", f"{place}.b", f"{place}.c"], f"{place}.ours", dim))
            shapes = {"ours": (3 * height, 3 * width)}
        else:
            rules.append(Stack(f"{place}.{{each}}.theirs", f"{place}.ours", dim))
            shapes = {"ours": (height, width)}
        for layer in range(layers):
            for name, shape in shapes.items():
                ours[f"p{number}.{layer}.{name}"] = torch.randn(shape)
    return rules, ours


def back_to_ours(table, ours, public):
    loaded = {}
    for match in table.matches(ours, public):
        loaded.update(zip(match.ours, match.rule.to_ours([public[name] for name in match.public]), strict=True))
    return loaded


@settings(max_examples=60, deadline=None)
@given(rules_with_tensors())
def test_what_goes_out_comes_back(example):
    rules, ours = example
    table = Table(under("outer.", "inner.", rules))
    ours = {f"inner.{name}": tensor for name, tensor in ours.items()}
    public = table.to_public(ours)
    assert all(name.startswith("outer.") for name in public)
    loaded = back_to_ours(table, ours, public)
    assert loaded.keys() == ours.keys()
    for name, tensor in ours.items():
        assert torch.equal(loaded[name], tensor), name
    # And the other direction: published files come back as they were.
    again = table.to_public(loaded)
    assert again.keys() == public.keys()
    assert all(torch.equal(again[name], public[name]) for name in public)


def test_a_convolution_kernel_becomes_a_matrix_with_the_channel_last():
    form = Rearrange("width channels row column -> width (row column channels)", channels=2, row=3, column=3)
    kernel = torch.arange(4 * 2 * 3 * 3).reshape(4, 2, 3, 3)
    matrix = form.to_ours(kernel)
    assert matrix.shape == (4, 18)
    assert matrix[1, (2 * 3 + 1) * 2 + 0] == kernel[1, 0, 2, 1]


def test_split_keeps_the_order_of_the_parts():
    rule = Split("qkv", ["q", "k", "v"])
    query, key, value = rule.to_ours([torch.arange(6.0)])
    assert (query.tolist(), key.tolist(), value.tolist()) == ([0, 1], [2, 3], [4, 5])


def test_a_wildcard_stands_for_one_part_of_a_name():
    table = Table([Rename("layer.{n}.w", "blocks.{n}.w")])
    with pytest.raises(ValueError, match=r"no rule for our weight 'blocks.0.inner.w'"):
        table.to_public({"blocks.0.inner.w": torch.zeros(1)})
    assert table.to_public({"blocks.11.w": torch.zeros(1)}).keys() == {"layer.11.w"}
    # One that stands twice is the same both times, be it a number or a word.
    twice = Table([Rename("{n}.{leaf}", "blocks.{n}.copy_{n}.{leaf}")])
    assert twice.to_public({"blocks.7.copy_7.bias": torch.zeros(1)}).keys() == {"7.bias"}
    with pytest.raises(ValueError, match="no rule"):
        twice.to_public({"blocks.7.copy_8.bias": torch.zeros(1)})


def test_a_rule_with_different_wildcards_on_its_sides_is_refused():
    with pytest.raises(ValueError, match=r"same \{wildcards\}"):
        Table([Rename("layer.{n}.w", "blocks.{m}.w")])


def test_the_first_rule_is_written_and_every_spelling_is_read():
    table = Table([Rename("new", "w")], also_read=[Rename("old", "w"), Join(["old.a", "old.b"], "w")])
    ours = {"w": torch.arange(4.0)}
    assert table.to_public(ours).keys() == {"new"}
    for public in ({"new": ours["w"]}, {"old": ours["w"]}, {"old.a": ours["w"][:2], "old.b": ours["w"][2:]}):
        assert torch.equal(back_to_ours(table, ours, public)["w"], ours["w"])


def test_an_incomplete_spelling_is_still_recognized():
    table = Table([Rename("new", "w")], also_read=[Join(["old.a", "old.b"], "w")])
    (match,) = table.matches({"w": torch.zeros(4)}, {"old.b"})
    assert match.public == ["old.a", "old.b"]


def test_ignored_names_take_wildcards():
    table = Table([], ties=[Tie("head", "embedding")], ignore=["layers.{n}.rotary.inv_freq"])
    assert table.ignores("layers.3.rotary.inv_freq")
    assert not table.ignores("layers.3.rotary.inv_freq.more")
    assert not table.ignores("layers.rotary.inv_freq")
