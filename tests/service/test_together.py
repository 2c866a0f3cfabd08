"""Acts that come together are one batch; nobody waits for others, and nobody's mistake is another's."""

import asyncio
import threading
from typing import Any

import pytest

from service.together import MAX_TOGETHER, Together

WAIT_SECONDS = 10.0


class Counter:
    """Keeps what it was given, and can be held up."""

    def __init__(self) -> None:
        self.batches: list[tuple[Any, list[Any]]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def do(self, kind: Any, acts: Any, _end_turn: Any) -> list[Any]:
        self.batches.append((kind, list(acts)))
        assert self.go_on.wait(WAIT_SECONDS)
        if "poison" in acts:
            raise ValueError("poison")
        return [KeyError(act) if act == "refused" else f"did {act}" for act in acts]


async def ask_all(together: Together[str, str], *asked: tuple[str, Any, Any]) -> list[Any]:
    tasks = [asyncio.create_task(together.ask(act, kind=kind, who=who)) for act, kind, who in asked]
    return await asyncio.gather(*tasks, return_exceptions=True)


def crowd(counter: Counter, *asked: tuple[str, Any, Any]) -> list[Any]:
    """The first is under way when all others come."""
    together: Together[str, str] = Together("test", counter.do, num_threads=1)

    async def come() -> list[Any]:
        counter.go_on.clear()
        first = asyncio.create_task(ask_all(together, asked[0]))
        while not counter.batches:
            await asyncio.sleep(0.001)
        others = asyncio.create_task(ask_all(together, *asked[1:]))
        await asyncio.sleep(0.02)
        counter.go_on.set()
        return [*await first, *await others]

    return asyncio.run(come())


def test_who_comes_while_a_batch_is_under_way_goes_in_the_next_one_together() -> None:
    counter = Counter()
    told = crowd(counter, ("a", "k", 1), ("b", "k", 2), ("c", "k", 3), ("d", "k", None), ("e", "k", None))
    assert told == ["did a", "did b", "did c", "did d", "did e"]
    assert counter.batches == [("k", ["a"]), ("k", ["b", "c", "d", "e"])]


def test_kinds_stay_apart_and_one_persons_acts_follow_one_another() -> None:
    counter = Counter()
    asked = [("a", "k", 1), ("b", "k", 2), ("c", "other", 3), ("d", "k", 2), ("e", "k", 4)]
    assert crowd(counter, *asked) == [f"did {act}" for act, _, _ in asked]
    assert counter.batches == [("k", ["a"]), ("k", ["b", "e"]), ("other", ["c"]), ("k", ["d"])]


def test_batch_has_a_limit() -> None:
    counter = Counter()
    asked = [(f"act {number}", "k", number) for number in range(MAX_TOGETHER + 3)]
    assert crowd(counter, *asked) == [f"did {act}" for act, _, _ in asked]
    assert [len(acts) for _, acts in counter.batches] == [1, MAX_TOGETHER, 2]


def test_batch_that_fails_is_done_again_one_by_one_and_only_the_culprit_hears_of_it() -> None:
    counter = Counter()
    told = crowd(counter, ("a", "k", 1), ("b", "k", 2), ("poison", "k", 3), ("refused", "k", 4), ("c", "k", 5))
    assert told[:2] == ["did a", "did b"]
    assert told[4] == "did c"
    assert isinstance(told[2], ValueError)
    assert isinstance(told[3], KeyError)


def test_lone_failure_is_raised_and_not_done_twice() -> None:
    counter = Counter()
    together: Together[str, str] = Together("test", counter.do, num_threads=1)
    with pytest.raises(ValueError, match="poison"):
        asyncio.run(together.ask("poison"))
    assert len(counter.batches) == 1


def test_whoever_goes_away_leaves_the_others_alone() -> None:
    counter = Counter()
    together: Together[str, str] = Together("test", counter.do, num_threads=1)

    async def come() -> Any:
        counter.go_on.clear()
        gone = asyncio.create_task(together.ask("gone"))
        while not counter.batches:
            await asyncio.sleep(0.001)
        stays = asyncio.create_task(together.ask("stays"))
        await asyncio.sleep(0.01)
        gone.cancel()
        counter.go_on.set()
        return await stays

    assert asyncio.run(come()) == "did stays"


def test_the_next_batch_begins_when_the_one_before_says_so_and_no_sooner() -> None:
    begun, said, ended = [threading.Event() for _ in range(2)], threading.Event(), threading.Event()

    def do(_kind: Any, acts: Any, end_turn: Any) -> list[str]:
        begun[acts[0]].set()
        if acts == [0]:
            assert said.wait(WAIT_SECONDS)
            end_turn()
            assert ended.wait(WAIT_SECONDS)
        return ["done"] * len(acts)

    together: Together[int, str] = Together("test", do, num_threads=2)

    async def come() -> None:
        first = asyncio.create_task(together.ask(0))
        await asyncio.to_thread(begun[0].wait, WAIT_SECONDS)
        second = asyncio.create_task(together.ask(1))
        await asyncio.sleep(0.05)
        assert not begun[1].is_set()
        said.set()
        assert await second == "done"
        assert not first.done()
        ended.set()
        assert await first == "done"

    asyncio.run(come())


def test_whoever_ends_with_its_whole_loop_leaves_the_others_served() -> None:
    counter = Counter()
    together: Together[str, str] = Together("test", counter.do, num_threads=1)

    async def leave() -> None:
        counter.go_on.clear()
        task = asyncio.create_task(together.ask("gone"))
        while not counter.batches:
            await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(leave())
    counter.go_on.set()
    assert asyncio.run(asyncio.wait_for(together.ask("stays"), WAIT_SECONDS)) == "did stays"
