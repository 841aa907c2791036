"""AsyncRemote is a Remote for asyncio: calls wait in threads, so that the event loop never does."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent import futures
from types import TracebackType
from typing import Any, Self

from splitsem_device.answers import Info
from splitsem_device.call_statistics import CallStatistics
from splitsem_device.remotes import Remote

_END = object()
_CLOSING_S = 0.1


class AsyncRemote:
    """See ``Remote``, whose methods these are; an asynchronous context that connects when it is entered.

    Args:
        make: connects, in a thread.
        max_calls: calls at one time; further ones wait.
    """

    def __init__(self, make: Callable[[], Remote[Any]], max_calls: int = 32) -> None:
        self._make = make
        self._pool = futures.ThreadPoolExecutor(max_calls, thread_name_prefix="call")
        self._remote: Remote[Any] | None = None

    async def __aenter__(self) -> Self:
        self._remote = await self._run(self._make)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def compute(self, *args: Any) -> Any:
        """See Remote; many may be awaited at a time."""
        return await self._run(self._connected.compute, *args)

    async def stream(
        self, samples: Iterable[Any] | AsyncIterable[Any], window: int | None = None
    ) -> AsyncIterator[Any]:
        """See Remote; the samples may come from an asynchronous iterator, too."""
        arriving = _Arriving(asyncio.get_running_loop(), samples) if isinstance(samples, AsyncIterable) else None
        results = self._connected.stream(arriving or samples, window)  # type: ignore[arg-type]
        try:
            while (result := await self._run(next, results, _END)) is not _END:
                yield result
        finally:
            if arriving is not None:
                arriving.close()
            await self._run(results.close)  # type: ignore[attr-defined]

    async def health(self) -> bool:
        """See Remote."""
        return await self._run(self._connected.health)

    async def info(self) -> Info:
        """See Remote."""
        return await self._run(self._connected.info)

    def statistics(self) -> CallStatistics:
        """See Remote."""
        return self._connected.statistics()

    async def close(self) -> None:
        """See Remote."""
        if self._remote is not None:
            await self._run(self._remote.close)
        self._pool.shutdown(wait=False)

    @property
    def _connected(self) -> Remote[Any]:
        if self._remote is None:
            raise RuntimeError("enter the context first: async with connect_async(…) as remote")
        return self._remote

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)


class _Arriving:
    """The samples of an asynchronous iterator for the thread that sends them, which waits for each."""

    def __init__(self, loop: asyncio.AbstractEventLoop, samples: AsyncIterable[Any]) -> None:
        self._loop, self._samples = loop, aiter(samples)
        self._is_closed = False

    def __iter__(self) -> Iterator[Any]:
        while not self._is_closed:
            coming = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            while not futures.wait([coming], _CLOSING_S).done:  # an abandoned stream must not keep this thread for ever
                if self._is_closed:
                    coming.cancel()
                    return
            if (sample := coming.result()) is _END:
                return
            yield sample

    def close(self) -> None:
        """Take no more samples."""
        self._is_closed = True

    async def _next(self) -> Any:
        return await anext(self._samples, _END)
