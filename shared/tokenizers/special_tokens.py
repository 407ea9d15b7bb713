"""The special tokens of the course's own language models; each stands for one token id and never occurs in text."""

BEGIN_TOKEN = "<|begin|>"
END_TOKEN = "<|end|>"
TURN_TOKEN = "<|turn|>"
IMAGE_TOKEN = "<image>"
SPECIAL_TOKENS = (BEGIN_TOKEN, END_TOKEN, TURN_TOKEN, IMAGE_TOKEN)
"""In the order of their ids. The first begins every document; the others are for conversations and images."""
