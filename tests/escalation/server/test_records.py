"""What is noted beside incidents: found by kind, owner and key, the same in memory and in every database."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from escalation.server.storage.records import Kind, Records
from escalation.server.storage.store import Ledger, StoreCorrupt
from escalation.server.testing_records import MemoryRecords
from tests.escalation.server.databases import Database


@dataclass(frozen=True, slots=True)
class Remark:
    person: str
    at_ns: int
    about: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Other:
    number: int


REMARKS = Kind("remark", Remark)
OTHERS = Kind("other", Other)

_keys = st.sampled_from(["", "a", "b", "Z", "é", "10", "9"])
_steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "remove"]), st.sampled_from(["", "inc-1"]), _keys, st.integers(0, 9)
    )
)


def _write(records: Records) -> None:
    records.put(REMARKS, "b", Remark("ada", 2, ("x", "y")), owner="inc-1")
    records.put(REMARKS, "a", Remark("bob", 1), owner="inc-1")
    records.put(REMARKS, "a", Remark("eve", 9), owner="inc-2")
    records.put(OTHERS, "a", Other(7))


async def test_a_record_is_found_by_kind_owner_and_key(database: Database) -> None:
    """What was written comes back as it was, after a restart too."""
    store = database.open()
    await store.write(lambda ledger: _write(ledger.records))
    await store.close()
    store = database.open()
    try:
        found = await store.read(
            lambda ledger: (
                ledger.records.get(REMARKS, "b", owner="inc-1"),
                list(ledger.records.of(REMARKS, owner="inc-1").items()),
                ledger.records.get(REMARKS, "a"),
                ledger.records.of(OTHERS),
                list(ledger.records.owners(REMARKS)),
            )
        )
    finally:
        await store.close()
    assert found == (
        Remark("ada", 2, ("x", "y")),
        [("a", Remark("bob", 1)), ("b", Remark("ada", 2, ("x", "y")))],
        None,
        {"a": Other(7)},
        [("inc-1", "a"), ("inc-1", "b"), ("inc-2", "a")],
    )


async def test_what_is_undone_was_never_held(database: Database) -> None:
    """A piece of work that fails leaves no record, neither on disk nor in what the ledger holds."""
    store = database.open()

    def fails(ledger: Ledger) -> None:
        assert ledger.records.of(REMARKS) == {}
        ledger.records.put(REMARKS, "a", Remark("ada", 1))
        raise ValueError("no")

    try:
        with pytest.raises(ValueError, match="no"):
            await store.write(fails)
        assert await store.write(lambda ledger: dict(ledger.records.of(REMARKS))) == {}
    finally:
        await store.close()


@pytest.mark.postgres
async def test_what_another_process_wrote_is_seen(shared: Database) -> None:
    """Two processes on one database: nobody goes on with what it held before."""
    first, second = shared.open(), shared.open()
    try:
        assert await first.write(lambda ledger: dict(ledger.records.of(OTHERS))) == {}
        await second.write(lambda ledger: ledger.records.put(OTHERS, "a", Other(1)))
        assert await first.write(lambda ledger: dict(ledger.records.of(OTHERS))) == {"a": Other(1)}
    finally:
        await first.close()
        await second.close()


async def test_a_damaged_record_says_what_it_was(database: Database) -> None:
    """A value of another shape is a damaged database, and its kind is named."""
    store = database.open()
    try:
        await store.write(lambda ledger: ledger.records.put(OTHERS, "a", Other(1)))
        with pytest.raises(StoreCorrupt, match="of kind other"):
            await store.read(lambda ledger: ledger.records.get(Kind("other", Remark), "a"))
    finally:
        await store.close()


async def _after(database: Database, steps: list[tuple[str, str, str, int]]) -> tuple[object, ...]:
    store = database.open()
    try:
        removed = await store.write(lambda ledger: _play(ledger.records, steps))
        return await store.read(lambda ledger: (removed, *_seen(ledger.records)))
    finally:
        await store.close()


def _play(records: Records, steps: list[tuple[str, str, str, int]]) -> list[bool]:
    removed = []
    for verb, owner, key, number in steps:
        if verb == "put":
            records.put(OTHERS, key, Other(number), owner=owner)
        else:
            removed.append(records.remove(OTHERS, key, owner=owner))
    return removed


def _seen(records: Records) -> tuple[object, ...]:
    return (
        list(records.owners(OTHERS).items()),
        list(records.of(OTHERS, owner="inc-1").items()),
        list(records.newest(OTHERS, limit=2).items()),
    )


@given(steps=_steps)
def test_memory_and_sql_agree(steps: list[tuple[str, str, str, int]]) -> None:
    """The double behaves as the database does, whatever is done in whatever order."""
    memory = MemoryRecords()
    expected = (_play(memory, steps), *_seen(memory))
    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(_after(Database(Path(folder) / "o.db"), steps)) == expected
