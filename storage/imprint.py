"""What a journal held at one moment, in a few bytes, so that it can be compared later.

Guarantees: a journal that has only grown since is found to match, and one of which a saga
was lost, put in, or altered is not: each page of sagas has a hash over their ids and the
hashes of their last records, which cover all records before.
Refuses: to judge what was pruned since; that is counted.
Costs: some 5 microseconds a saga, and about 200 bytes for each page of 256; what was under
way takes a line of its own, since it goes on. Verify the journal as well: an imprint believes
the indexes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import TERMINAL
from raysaga.storage.codec import chain_of
from raysaga.storage.journal import Head, HeadFilter, Journal

PAGE_SAGAS = 256
"""Sagas under one hash: what is pruned later makes no more than its page incomparable."""

HASH_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some sagas that were accepted one after another.

    Attributes:
        first: Id of the first.
        last: Id of the last.
        saga_count: How many they are.
        hash: Over all of them, as hex.
    """

    first: str
    last: str
    saga_count: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A saga that had not ended, and the last record that it had."""

    saga_id: str
    seq: int
    chain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imprint:
    """What one journal held.

    Attributes:
        saga_count: All of them.
        chain_head: Hash over the pages, each tied to the one before, as hex.
        pages: In the order of acceptance.
        under_way: Sagas that had not ended, parked ones included.
    """

    saga_count: int
    chain_head: str
    pages: tuple[Page, ...]
    under_way: tuple[Open, ...]

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Imprint:
        """Return what `to_data` described.

        Raises:
            KeyError, TypeError, ValueError: If the data is no imprint.
        """
        return cls(
            saga_count=int(data["saga_count"]),
            chain_head=str(data["chain_head"]),
            pages=tuple(Page(**page) for page in data["pages"]),
            under_way=tuple(Open(**saga) for saga in data["under_way"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What has become of a journal since an imprint.

    Attributes:
        new_count: Sagas that were accepted since.
        moved_count: Sagas that were under way and have gone on.
        gone_count: Sagas that are not there any more: pruned, or lost.
        differences: What cannot have come about by going on, a sentence each.
    """

    new_count: int
    moved_count: int
    gone_count: int
    differences: tuple[str, ...]


def imprint_of(journal: Journal) -> Imprint:
    """Return what the journal holds now; let it rest meanwhile."""
    pages: list[Page] = []
    under_way: list[Open] = []
    for heads in _pages(journal):
        pages.append(_page([(head.saga_id, head.seq, head.chain) for head in heads]))
        under_way.extend(
            Open(saga_id=head.saga_id, seq=head.seq, chain=head.chain.hex())
            for head in heads
            if head.phase not in TERMINAL
        )
    return Imprint(
        saga_count=sum(page.saga_count for page in pages),
        chain_head=chained(pages),
        pages=tuple(pages),
        under_way=tuple(under_way),
    )


def growth_since(imprint: Imprint, journal: Journal) -> Growth:
    """Return what has become of the journal since."""
    return _Comparison(imprint, journal).run()


def chained(pages: Sequence[Page]) -> str:
    """Return the hash over pages, each tied to the one before."""
    head = bytes(HASH_BYTES)
    for page in pages:
        head = blake2b(head + bytes.fromhex(page.hash), digest_size=HASH_BYTES).digest()
    return head.hex()


def _pages(journal: Journal) -> Iterator[list[Head]]:
    after = None
    while page := journal.heads(HeadFilter(), limit=PAGE_SAGAS, after=after, newest=False):
        yield page
        after = page[-1].saga_id


def _page(sagas: Sequence[tuple[str, int, bytes]]) -> Page:
    hashed = blake2b(digest_size=HASH_BYTES)
    for saga_id, seq, chain in sagas:
        hashed.update(f"{saga_id}\0{seq}\0".encode() + chain)
    return Page(
        first=sagas[0][0], last=sagas[-1][0], saga_count=len(sagas), hash=hashed.hexdigest()
    )


class _Comparison:
    def __init__(self, imprint: Imprint, journal: Journal) -> None:
        self._journal = journal
        self._pages = imprint.pages
        self._under_way = {saga.saga_id: saga for saga in imprint.under_way}
        self._ends = {page.last: i for i, page in enumerate(imprint.pages)}
        self._new = self._moved = self._gone = 0
        self._differences: list[str] = []

    def run(self) -> Growth:
        """Walk the journal from its oldest saga, page by page of the imprint."""
        at = 0
        found: list[Head] = []
        for heads in _pages(self._journal):
            for head in heads:
                found.append(head)
                end = self._ends.get(head.saga_id)
                if end is not None and end >= at:
                    self._compare(self._pages[at : end + 1], found)
                    at, found = end + 1, []
        if at < len(self._pages):
            self._without_end(self._pages[at:], found)
        else:
            self._new = len(found)
        return Growth(
            new_count=self._new,
            moved_count=self._moved,
            gone_count=self._gone,
            differences=tuple(self._differences),
        )

    def _compare(self, pages: Sequence[Page], found: Sequence[Head]) -> None:
        """Compare pages, of which only the last has kept its last saga, with what is there."""
        expected = sum(page.saga_count for page in pages)
        where = f"between {pages[0].first} and {pages[-1].last}"
        if len(found) > expected:
            self._differences.append(f"{len(found) - expected} sagas were put in {where}")
            return
        self._gone += expected - len(found)
        for page in pages[:-1]:
            self._must_be_pruned(page.last)
        sagas = [self._as_it_was(head) for head in found]
        if len(found) == expected and len(pages) == 1 and _page(sagas).hash != pages[0].hash:
            self._differences.append(f"some of the {expected} sagas {where} are not what they were")

    def _without_end(self, pages: Sequence[Page], found: Sequence[Head]) -> None:
        """Tell of pages whose last sagas are gone, so that nothing says where they ended."""
        self._gone += max(sum(page.saga_count for page in pages) - len(found), 1)
        for page in pages:
            self._must_be_pruned(page.last)

    def _must_be_pruned(self, saga_id: str) -> None:
        record = self._journal.key_record(SagaId(saga_id))
        if record is None:
            self._differences.append(f"{saga_id} is gone, and its key is not known any more")
        elif record.phase not in TERMINAL:
            self._differences.append(f"{saga_id} is gone, and had not ended")

    def _as_it_was(self, head: Head) -> tuple[str, int, bytes]:
        """Return what the imprint should have said of a saga."""
        was = self._under_way.get(head.saga_id)
        if was is None or head.seq <= was.seq:
            return head.saga_id, head.seq, head.chain
        self._moved += 1
        record = self._journal.records(head.saga_id)[was.seq]
        return head.saga_id, was.seq, chain_of(head.saga_id, record)
