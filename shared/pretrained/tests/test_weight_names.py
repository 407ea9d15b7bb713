"""Weight names: writing and reading are inverse, and errors name the weight."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.pretrained import Join, Rearrange, Rename, Split, Stack, Tie, WeightNames, with_prefix

sizes = st.integers(1, 4)


@st.composite
def rules_with_tensors(draw):
    """Rules of every kind in any order, and model weights that they cover."""
    rules, weights = [], {}
    kinds = draw(st.lists(st.sampled_from(["rename", "form", "split", "sized split", "join", "stack"]), min_size=1))
    for number, kind in enumerate(kinds):
        height, width = draw(sizes), draw(sizes)
        depth = draw(st.integers(1, 3))
        dim = draw(st.sampled_from([0, 1, -1]))
        place = f"p{number}.{{layer}}"
        if kind == "rename":
            rules.append(Rename(f"{place}.published", f"{place}.model"))
            shapes = {"model": (height, width)}
        elif kind == "form":
            form = Rearrange("a b c -> c (b a)", a=height, b=width)
            rules.append(Rename(f"{place}.published", f"{place}.model", form))
            shapes = {"model": (draw(sizes), width * height)}
        elif kind == "split":
            rules.append(Split(f"{place}.published", [f"{place}.one", f"{place}.two"], dim))
            shapes = {"one": (height, width), "two": (height, width)}
        elif kind == "sized split":
            one, two = draw(sizes), draw(sizes)
            rules.append(Split(f"{place}.published", [f"{place}.one", f"{place}.two"], 1, sizes=[one, two]))
            shapes = {"one": (height, one), "two": (height, two)}
        elif kind == "join":
            rules.append(Join([f"{place}.a", f"{place}.b", f"{place}.c"], f"{place}.model", dim))
            shapes = {"model": (3 * height, 3 * width)}
        else:
            rules.append(Stack(f"{place}.{{each}}.published", f"{place}.model", dim))
            shapes = {"model": (height, width)}
        for layer in range(depth):
            for name, shape in shapes.items():
                weights[f"p{number}.{layer}.{name}"] = torch.randn(shape)
    return rules, weights


def read_back(names, weights, published):
    loaded = {}
    for match in names.matches(weights, published):
        loaded.update(zip(match.model, match.rule.to_model([published[name] for name in match.published]), strict=True))
    return loaded


@settings(max_examples=60, deadline=None)
@given(rules_with_tensors())
def test_writing_and_reading_are_inverse(example):
    rules, weights = example
    names = WeightNames(with_prefix("outer.", "inner.", rules))
    weights = {f"inner.{name}": tensor for name, tensor in weights.items()}
    published = names.to_published(weights)
    assert all(name.startswith("outer.") for name in published)
    loaded = read_back(names, weights, published)
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(loaded[name], tensor), name
    # The other direction: published tensors are written as they were read.
    again = names.to_published(loaded)
    assert again.keys() == published.keys()
    assert all(torch.equal(again[name], published[name]) for name in published)


def test_a_convolution_kernel_is_flattened_with_the_channel_last():
    form = Rearrange("width channels row column -> width (row column channels)", channels=2, row=3, column=3)
    kernel = torch.arange(4 * 2 * 3 * 3).reshape(4, 2, 3, 3)
    flat = form.to_model(kernel)
    assert flat.shape == (4, 18)
    assert flat[1, (2 * 3 + 1) * 2 + 0] == kernel[1, 0, 2, 1]


def test_split_keeps_the_order_of_the_parts():
    rule = Split("qkv", ["q", "k", "v"])
    query, key, value = rule.to_model([torch.arange(6.0)])
    assert (query.tolist(), key.tolist(), value.tolist()) == ([0, 1], [2, 3], [4, 5])


def test_a_wildcard_stands_for_one_part_of_a_name():
    names = WeightNames([Rename("layer.{n}.w", "blocks.{n}.w")])
    with pytest.raises(ValueError, match=r"no rule covers the model's weight 'blocks\.0\.inner\.w'"):
        names.to_published({"blocks.0.inner.w": torch.zeros(1)})
    assert names.to_published({"blocks.11.w": torch.zeros(1)}).keys() == {"layer.11.w"}
    # A wildcard that appears twice has the same value both times, a number or a word.
    twice = WeightNames([Rename("{n}.{leaf}", "blocks.{n}.copy_{n}.{leaf}")])
    assert twice.to_published({"blocks.7.copy_7.bias": torch.zeros(1)}).keys() == {"7.bias"}
    with pytest.raises(ValueError, match="no rule"):
        twice.to_published({"blocks.7.copy_8.bias": torch.zeros(1)})


def test_a_rule_with_different_wildcards_on_its_sides_is_refused():
    with pytest.raises(ValueError, match=r"same \{wildcards\}"):
        WeightNames([Rename("layer.{n}.w", "blocks.{m}.w")])


def test_the_first_rule_is_written_and_every_spelling_is_read():
    names = WeightNames([Rename("new", "w")], also_read=[Rename("old", "w"), Join(["old.a", "old.b"], "w")])
    weights = {"w": torch.arange(4.0)}
    assert names.to_published(weights).keys() == {"new"}
    for published in (
        {"new": weights["w"]},
        {"old": weights["w"]},
        {"old.a": weights["w"][:2], "old.b": weights["w"][2:]},
    ):
        assert torch.equal(read_back(names, weights, published)["w"], weights["w"])


def test_an_incomplete_spelling_is_still_recognized():
    names = WeightNames([Rename("new", "w")], also_read=[Join(["old.a", "old.b"], "w")])
    (match,) = names.matches({"w": torch.zeros(4)}, {"old.b"})
    assert match.published == ["old.a", "old.b"]


def test_ignored_names_take_wildcards():
    names = WeightNames([], ties=[Tie("head", "embedding")], ignore=["layers.{n}.rotary.inv_freq"])
    assert names.ignores("layers.3.rotary.inv_freq")
    assert not names.ignores("layers.3.rotary.inv_freq.more")
    assert not names.ignores("layers.rotary.inv_freq")
