"""Many independent items: computed here or in worker processes, kept as they finish, never computed twice."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeVar

import scipy.linalg  # noqa: F401  # loads SciPy's own BLAS: `one_thread` reaches only libraries that are loaded
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from tremorscope.foundations.errors import BadInput, TremorscopeError
from tremorscope.foundations.run import Run
from tremorscope.foundations.run_lock import living_shards
from tremorscope.foundations.shard import PartlyDone, Shard

T = TypeVar("T")
Outcomes = Generator[tuple[str, Any], None, None]  # a key with its value, or with the error of its item


def map_items(
    fn: Callable[[T, Run | None], Any],
    items: Mapping[str, T],
    *,
    run: Run | None = None,
    jobs: int = 1,
    progress: str | None = None,
) -> Iterator[tuple[str, Any]]:
    """`fn(item, run)` for every item, in the order of the items, whatever finishes first.

    Values are JSON, and are handed over as they come back from it (a tuple is a list). With a run, the
    items it has finished are read, not computed, and each new value is saved before it is yielded: a
    killed run goes on where it was. With `jobs` above 1, `fn` runs in that many fresh processes, and gets
    the run as a worker sees it (`Run.attach`). Values do not depend on `jobs`: one thread everywhere.

    In a shard of a run (`Run.join`), only the items of its share are computed. When those of the others
    are there as well, all are yielded, by one shard at a time; until then this ends with `PartlyDone`.

    Cost: starting workers takes a second or two (they import torch), so a handful of items of less than
    a tenth of a second is faster with `jobs=1`.

    Args:
        fn: A function of a module (not a lambda, nor one defined inside another) when `jobs` is above 1.
        items: Keys are file names: letters, digits and `._=,+@%-`.
        run: Where values are kept.
        jobs: Number of processes.
        progress: Label of the progress events of `run`; none without it.

    Raises:
        BadInput: If `jobs` is below 1, `fn` or an item cannot be sent to a process, or a value is not JSON.
        TremorscopeError: If a worker died twice over one item. Errors of `fn` pass through as they are:
            items before the failed one are yielded first, and those being computed are saved.
        PartlyDone: In a shard, when its items are done and others are missing.
        AlreadyFinished: In a shard, when another one has saved the result meanwhile.

    >>> dict(map_items(lambda item, run: item**2, {"two": 2, "three": 3}))
    {'two': 4, 'three': 9}
    """
    # Arguments are looked at now; the generators below would do so only when first asked for a value.
    if jobs < 1:
        raise BadInput("jobs", got=jobs, wanted="at least 1")
    if run is not None and run.shard is not None:
        return _in_shards(fn, items, run, run.shard, jobs, progress)
    done: dict[str, Any] = {}
    for key in items:
        value = None if run is None else run.item(key)
        if run is not None and run.has_item(key):  # asked second: a damaged item has gone by now
            done[key] = value
    todo = {key: item for key, item in items.items() if key not in done}
    if jobs == 1 or len(todo) < 2:
        fresh = _in_this_process(fn, todo, run)
    else:
        _must_travel(fn, next(iter(todo.values())))
        fresh = _in_processes(fn, todo, run, min(jobs, len(todo)))
    return _in_order(list(items), done, fresh, run, progress)


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch and one BLAS thread inside: sums over several threads differ in the last digits.

    Also what keeps many workers from crowding each other out. Costs about a millisecond.
    """
    before = torch.get_num_threads()
    with threadpool_limits(1, user_api="blas"):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _in_order(
    keys: list[str], outcomes: dict[str, Any], fresh: Outcomes, run: Run | None, progress: str | None
) -> Iterator[tuple[str, Any]]:
    """Merge finished and fresh outcomes into the order of `keys`."""
    num_done = len(outcomes)

    def tell() -> None:
        if run is not None and progress is not None:
            run.progress(progress, num_done, len(keys))

    tell()
    try:
        for key in keys:
            while key not in outcomes:
                landed, outcome = next(fresh)
                outcomes[landed] = outcome
                if not isinstance(outcome, BaseException):
                    num_done += 1
                    tell()
            outcome = outcomes.pop(key)
            if isinstance(outcome, BaseException):
                raise outcome
            yield key, outcome
    finally:
        fresh.close()


def _in_shards(
    fn: Callable[[T, Run | None], Any],
    items: Mapping[str, T],
    run: Run,
    shard: Shard,
    jobs: int,
    progress: str | None,
) -> Iterator[tuple[str, Any]]:
    """The share first; all items when nobody else's is missing.

    What a study does outside of its items is done by one shard at a time: so none sees files come or go that
    another one is still working with.
    """
    run.leave_merge()
    whole = run.as_worker()  # an item that calls `map_items` itself has it all to itself
    owners = shard.owners(items)
    share = {key: item for key, item in items.items() if owners[key] == shard}
    label = None if progress is None else f"{progress} (shard {shard})"
    for _ in map_items(fn, share, run=whole, jobs=jobs, progress=label):
        pass
    missing: dict[str, list[str]] = {}
    for key in items:
        if not run.has_item(key):
            missing.setdefault(str(owners[key]), []).append(key)
    if missing:
        at_work = [str(other) for other in living_shards(run.path) if other != shard]
        raise PartlyDone(run.path, len(items), dict(sorted(missing.items())), at_work)
    run.enter_merge()
    yield from map_items(fn, items, run=whole, jobs=jobs)


def _in_this_process(fn: Callable[[T, Run | None], Any], items: Mapping[str, T], run: Run | None) -> Outcomes:
    for key, item in items.items():
        yield key, _compute(fn, key, item, run)


def _compute(fn: Callable[[T, Run | None], Any], key: str, item: T, run: Run | None) -> Any:
    with one_thread():
        value = fn(item, run)
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"value of item {key!r}",
            got=str(error),
            wanted="JSON: text, finite numbers, booleans, None, lists, dictionaries",
            remedy="Save tensors with run.save_arrays, and None for a number that is not finite.",
        ) from error
    if run is not None:
        run.save_item(key, plain)
    return plain


def _in_processes(fn: Callable[[T, Run | None], Any], items: Mapping[str, T], run: Run | None, jobs: int) -> Outcomes:
    """Outcomes as they come. A pool that lost a worker is replaced, and what it was computing tried once more."""
    queue = deque(items)
    suspects: set[str] = set()
    while queue:
        if run is not None:
            run.say(f"Starting {jobs} worker processes.")
        crashed = yield from _in_one_pool(fn, items, queue, run, jobs)
        lost = []
        for key in crashed:
            if run is not None and run.has_item(key):  # saved, but its worker died before it could say so
                yield key, run.item(key)
            else:
                lost.append(key)
        if again := [key for key in lost if key in suspects]:
            raise TremorscopeError(
                f"a worker process died twice while it computed {' or '.join(again)}",
                got="a killed process, often for want of memory",
                wanted="a value or an error",
                remedy="Use fewer jobs, or jobs=1 to see where it dies; finished items are kept. A script that "
                'starts workers must do so under `if __name__ == "__main__":`.',
            )
        if lost and run is not None:
            run.say(f"A worker process died; trying {', '.join(lost)} once more.", "warning")
        suspects.update(lost)
        queue.extendleft(reversed(lost))


def _in_one_pool(
    fn: Callable[[T, Run | None], Any], items: Mapping[str, T], queue: deque[str], run: Run | None, jobs: int
) -> Generator[tuple[str, Any], None, list[str]]:
    """Empty `queue` through one pool; returns what was in flight when a worker died.

    After the first error nothing new starts, and what is in flight is waited for.
    """
    path = None if run is None else run.path
    pool = ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=()
    )
    flying: dict[Future[Any], str] = {}
    try:
        while queue or flying:
            # At most one item for each worker is handed out, so that a dead worker makes few suspects.
            while queue and len(flying) < jobs:
                key = queue[0]
                flying[pool.submit(_compute_in_worker, fn, key, items[key], path)] = key
                queue.popleft()
            landed, _ = wait(flying, return_when=FIRST_COMPLETED)
            if any(isinstance(future.exception(), BrokenProcessPool) for future in landed):
                for future in landed:
                    if not isinstance(future.exception(), BrokenProcessPool):
                        yield flying.pop(future), future.exception() or future.result()
                return list(flying.values())
            for future in landed:
                key, error = flying.pop(future), future.exception()
                if error is not None:
                    queue.clear()
                yield key, future.result() if error is None else error
    except BrokenProcessPool:  # of `submit`
        return list(flying.values())
    finally:
        _wind_up(pool)
    return []


def _wind_up(pool: ProcessPoolExecutor) -> None:
    """Let the items in flight finish and be saved; a second Ctrl-C kills them."""
    workers = list((getattr(pool, "_processes", None) or {}).values())
    try:
        pool.shutdown(wait=True, cancel_futures=True)
    except KeyboardInterrupt:
        for worker in workers:
            worker.kill()
        raise


def _must_travel(fn: object, item: object) -> None:
    """Refuse here what would fail in the pool with an error about its own machinery."""
    for what, thing in (("function for worker processes", fn), ("item for worker processes", item)):
        try:
            pickle.dumps(thing)
        except Exception as error:
            raise BadInput(
                what,
                got=f"{type(thing).__name__} that cannot be sent: {error}",
                wanted="a function of a module, and plain values",
                remedy="Move it to the top level of a module, or use jobs=1.",
            ) from error


# In the worker


def _start_worker() -> None:
    # Ctrl-C reaches the whole group of processes; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever, and might write into a resumed run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@functools.cache
def _attached(path: Path) -> Run:
    return Run.attach(path)


def _compute_in_worker(fn: Callable[[T, Run | None], Any], key: str, item: T, path: Path | None) -> Any:
    try:
        return _compute(fn, key, item, None if path is None else _attached(path))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            # An error that cannot be rebuilt on the other side of the pipe would look like a dead worker.
            raise RuntimeError("".join(traceback.format_exception(error))) from None
        raise
