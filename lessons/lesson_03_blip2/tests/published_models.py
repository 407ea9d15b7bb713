"""Sizes and checks that the parity tests of lesson 3 share.

Every parameter of a published model is redrawn first: initially its queries are zero, and images have no effect.
"""

import torch
from safetensors.torch import load_file

VISION = {"hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 5, "patch_size": 3}
QFORMER = {"hidden_size": 24, "intermediate_size": 28, "num_attention_heads": 3, "layer_norm_eps": 1e-3}
TEXT = {"vocab_size": 37, "max_position_embeddings": 19, "use_qformer_text_input": True}
OPT_SIZES = {"hidden_size": 28, "num_hidden_layers": 2, "ffn_dim": 36, "num_attention_heads": 4}
QUERIES, IMAGE_TOKEN_ID = 5, 41


def close(actual, expected):
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def assert_same_files(folder):
    before, after = (load_file(folder / side / "model.safetensors") for side in ("published", "model"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def load_published(published_class, folder):
    model, report = published_class.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()
