"""Read several texts that are generated at the same time, in the order in which their parts arrive."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence


async def merge(sources: Sequence[AsyncGenerator[str, None]]) -> AsyncGenerator[tuple[int, str | None], None]:
    """Yield (number of the source, text), and (number, None) when that source has ended.

    Close the iterator (contextlib.aclosing) to leave early; this closes all sources. An exception of one source is
    raised here and closes the others.
    """
    arrived: asyncio.Queue[tuple[int, str | Exception | None]] = asyncio.Queue()

    async def forward(number: int, source: AsyncGenerator[str, None]) -> None:
        try:
            async with contextlib.aclosing(source):
                async for text in source:
                    arrived.put_nowait((number, text))
            arrived.put_nowait((number, None))
        except Exception as error:
            arrived.put_nowait((number, error))

    tasks = [asyncio.ensure_future(forward(number, source)) for number, source in enumerate(sources)]
    unfinished = len(sources)
    try:
        while unfinished:
            number, text = await arrived.get()
            if isinstance(text, Exception):
                raise text
            unfinished -= text is None
            yield number, text
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
