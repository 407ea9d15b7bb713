"""Evaluation of readers: the fraction of digits read correctly, also by aspect ratio, and the tokens that it takes."""

import torch
from torch import nn

from data.toybox.page.pages import page_at
from lessons.lesson_06_any_resolution.experiment.data import PageSource

ASPECT_BINS = 6
"""Groups of pages with similar aspect ratios, equally many pages each."""


@torch.no_grad()
def reading_accuracy(model: nn.Module, source: PageSource, count: int, device: str) -> dict:
    """Return the accuracy of printed digits on the first `count` pages of a source, and the tokens per page.

    Tokens are the mean over whole batches, so over up to one batch more than `count` pages.

    `by_aspect` holds the mean of height / width in `ASPECT_BINS` groups of pages, and the accuracy of digits in each.
    """
    model.eval()
    pages, tokens, correct = [], 0, []
    batches = -(-count // source.batch_size)
    for index in range(batches):
        batch = source(index).to(device)
        tokens += int((batch.patches.segments >= 0).sum())
        hits = model(batch).argmax(dim=-1) == batch.classes
        pages.append(index * source.batch_size + batch.pages.cpu())
        correct.append(torch.stack([hits, batch.is_digit]).cpu())
    page, (hits, is_digit) = torch.cat(pages), torch.cat(correct, dim=1)
    first = page < count  # the last batch may be longer than needed
    page, hits, is_digit = page[first], hits[first], is_digit[first]
    return {
        "digits": hits[is_digit].float().mean().item(),
        "characters": hits.float().mean().item(),
        "tokens": tokens / (batches * source.batch_size),
        "by_aspect": accuracy_by_aspect(source, page[is_digit], hits[is_digit].float(), count),
    }


def accuracy_by_aspect(source: PageSource, page: torch.Tensor, hits: torch.Tensor, count: int) -> list[list[float]]:
    """Return the mean height / width of groups of pages, from the widest pages to the tallest, and their accuracies."""
    sizes = [page_at(source.split, source.seed, number, source.setting(number)) for number in range(count)]
    aspects = torch.tensor([each.height / each.width for each in sizes])
    groups = [group for group in aspects.argsort().tensor_split(ASPECT_BINS) if len(group)]
    accuracies = [hits[torch.isin(page, group)].mean().item() for group in groups]
    return [[aspects[group].mean().item() for group in groups], accuracies]
