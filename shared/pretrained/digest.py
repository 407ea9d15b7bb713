"""One hash of all weights of a module, to check that frozen weights do not change."""

import hashlib

from torch import nn


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of every name and value in the module's state dict, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
