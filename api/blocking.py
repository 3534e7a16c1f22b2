"""The client for threads: the same calls as `client`, without `await`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import uvloop

from raysaga.api.client import Request, SagaHandle, Sagas, connect
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.outcome import Outcome
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import SagaError

T = TypeVar("T")


class BlockingHandle:
    """A saga, for code without an event loop.

    Attributes:
        saga_id: The saga.
        is_new: Whether this submission made the saga. Of all that use a key one at most is told
            so; none, if the answer to the one that made it was lost, and it was sent again.
    """

    def __init__(self, handle: SagaHandle, sagas: BlockingSagas) -> None:
        self._handle = handle
        self._sagas = sagas
        self.saga_id = handle.saga_id
        self.is_new = handle.is_new

    def result(self, timeout_s: float | None = None) -> Outcome:
        """See `SagaHandle.result`."""
        return self._sagas.run(self._handle.result(timeout_s))


class BlockingSagas:
    """A connection that any thread may use; opened by `with`.

    It runs an event loop in a thread of its own. Each call raises what its
    counterpart of `Sagas` raises.
    """

    def __init__(self, data: str | Path = DATA_FOLDER, **options: Any) -> None:
        self._connection = connect(data, **options)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._sagas: Sagas | None = None

    def __enter__(self) -> BlockingSagas:
        self._thread.start()
        try:
            self._sagas = self.run(self._connection.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.run(self._connection.__aexit__(kind, error, trace))
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the connection's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @property
    def sagas(self) -> Sagas:
        """The asyncio client underneath."""
        assert self._sagas is not None, "open the connection with `with` first"
        return self._sagas

    def submit(
        self,
        definition: SagaDefinition,
        request: Mapping[str, Any] | Request,
        *,
        key: str,
        deadline_s: float | None = None,
        dedicated: bool = False,
    ) -> BlockingHandle:
        """See `Sagas.submit`."""
        handle = self.run(
            self.sagas.submit(
                definition, request, key=key, deadline_s=deadline_s, dedicated=dedicated
            )
        )
        return BlockingHandle(handle, self)

    def submit_many(
        self,
        definition: SagaDefinition,
        requests: Iterable[tuple[str, Mapping[str, Any] | Request]],
        *,
        in_flight_max: int = 512,
        dedicated: bool = False,
    ) -> Iterator[tuple[str, Outcome | SagaError]]:
        """See `Sagas.submit_many`."""
        stream = self.sagas.submit_many(
            definition, requests, in_flight_max=in_flight_max, dedicated=dedicated
        )
        while True:
            try:
                yield self.run(anext(stream))  # type: ignore[arg-type]
            except StopAsyncIteration:
                return

    def handle(self, saga_id: str) -> BlockingHandle:
        """See `Sagas.handle`."""
        return BlockingHandle(self.sagas.handle(saga_id), self)

    def status(self, saga_id: str) -> dict[str, Any]:
        """See `Sagas.status`."""
        return self.run(self.sagas.status(saga_id))

    def history(self, saga_id: str, *, payloads: bool = False) -> list[dict[str, Any]]:
        """See `Sagas.history`."""
        return self.run(self.sagas.history(saga_id, payloads=payloads))

    def list(self, **conditions: Any) -> list[dict[str, Any]]:
        """See `Sagas.list`."""
        return self.run(self.sagas.list(**conditions))

    def cancel(self, saga_id: str, *, by: str = "caller", note: str = "") -> None:
        """See `Sagas.cancel`."""
        self.run(self.sagas.cancel(saga_id, by=by, note=note))

    def retry(self, saga_id: str, *, by: str, note: str = "") -> None:
        """See `Sagas.retry`."""
        self.run(self.sagas.retry(saga_id, by=by, note=note))

    def skip(self, saga_id: str, *, by: str, note: str) -> None:
        """See `Sagas.skip`."""
        self.run(self.sagas.skip(saga_id, by=by, note=note))

    def force(self, saga_id: str, *, by: str, note: str) -> None:
        """See `Sagas.force`."""
        self.run(self.sagas.force(saga_id, by=by, note=note))

    def stop_engine(self) -> None:
        """See `Sagas.stop_engine`."""
        self.run(self.sagas.stop_engine())

    def stats(self) -> Sequence[dict[str, Any]]:
        """See `Sagas.stats`."""
        return self.run(self.sagas.stats())


def connect_blocking(data: str | Path = DATA_FOLDER, **options: Any) -> BlockingSagas:
    """Return a connection for threads, to be opened by `with`.

    Args:
        data: The data folder; made if missing.
        options: As for `connect`.

    Raises, when opened:
        DataFolderError: If the folder cannot be used.
        EngineUnavailableError: If Ray or the engine does not start.
    """
    return BlockingSagas(data, **options)
