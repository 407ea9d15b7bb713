"""Language models of open-weight vision-language models, in PyTorch."""
