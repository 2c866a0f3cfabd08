"""The deduplication index of a dataset in the store: which segments it has, and of which run it is the state.

A state is a file that nobody changes: the text shards in the order in which their rows are numbered, the segments, the
runs whose pairs are in force, and how many clusters there are of each size. Going back is taking an earlier state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.store import Store, StoredFile
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from curation.dedup.index import Index, Links, Segment, Sorted, pack, unpack
from workers import manifests

FORMAT = 2
STATE = "index_state"
KIND = "index"


@dataclass(frozen=True, kw_only=True)
class Base:
    """The state on which an update builds.

    Parameters
    ----------
    run_id : of the deduplication whose state it is.
    chain : ids of the runs before it whose pairs are in force too, the oldest first.
    file : the state.
    num_records : rows it has.
    """

    run_id: str
    chain: list[str]
    file: StoredFile
    num_records: int


def rolled_back(session: Session, dataset_id: str) -> set[str]:
    """Deduplications that were taken back, by the ids of their runs."""
    query = select(Run).where(Run.dataset_id == dataset_id, Run.kind == "rollback", Run.state == "done")
    return {run.config["of"] for run in session.scalars(query)}


def behind(session: Session, run: Run) -> Run:
    """The run whose result a run put in force: another one's, where it took an update back."""
    return session.get_one(Run, run.config["to"]) if run.kind == "rollback" else run


def find_base(
    session: Session, store: Store, version: Version, *, recipe_hash: str, scope: dict[str, Any]
) -> Base | None:
    """The newest state of an index made alike, all of whose shards the version has; None when there is none."""
    back = rolled_back(session, version.dataset_id)
    present = {entry["data"]["sha256"] for entry in manifests.read(store, version)["shards"]}
    query = (
        select(Run)
        .where(Run.dataset_id == version.dataset_id, Run.kind == "dedup", Run.state == "done")
        .order_by(Run.finished_at.desc(), Run.id)
    )
    for run in session.scalars(query):
        if run.id in back or run.config["recipe_hash"] != recipe_hash or run.config["scope"] != scope:
            continue
        file = state_of(session, run.id)
        if file is None:
            continue
        state = store.read_json(file)
        shards = state["shards"]
        if state["format"] == FORMAT and {one["sha256"] for one in shards} <= present:
            rows = sum(one["num_rows"] for one in shards)
            return Base(run_id=run.id, chain=run.config.get("chain", []), file=file, num_records=rows)
    return None


def state_of(session: Session, run_id: str) -> StoredFile | None:
    """The state that a run left, with its segments merged if that has been done since; None when it left none."""
    merges = select(Run).where(Run.kind == "merge", Run.state == "done", Run.idempotency_key == f"merge {run_id}")
    for one in [*(merge.id for merge in session.scalars(merges)), run_id]:
        found = manifests.run_files(session, one, STATE)
        if found:
            return found[0]
    return None


def open_index(store: Store, state: dict[str, Any]) -> Index:
    """The index of a state; files are mapped into memory where the store is a folder, and read where it is not."""
    opened: dict[str, dict[str, np.ndarray]] = {}

    def arrays(file: dict[str, Any]) -> dict[str, np.ndarray]:
        if file["name"] not in opened:
            opened[file["name"]] = unpack(store.map_bytes(StoredFile.from_json(file)))
        return opened[file["name"]]

    def segment(one: dict[str, Any]) -> Segment:
        few = arrays(one["few"])
        return Segment(
            first_row=one["first_row"],
            num_rows=one["num_rows"],
            bands=[(arrays(file)["band_hashes"], arrays(file)["band_rows"]) for file in one["bands"]],
            exact=[(arrays(file)["exact_hashes"], arrays(file)["exact_rows"]) for file in one["exact"]],
            better=(few["better_hashes"], few["better_rows"]),
            sketches=[(first, arrays(file)["sketches"].reshape(-1, 2)) for first, file in one["sketches"]],
            measured=[_links(arrays(file), "measured") for file in one["measured"]],
            similar=[_links(arrays(file), "similar") for file in one["similar"]],
            hot=few["hot"],
        )

    return Index([segment(one) for one in state["segments"]])


def _links(arrays: dict[str, np.ndarray], kind: str) -> Links:
    return Links(**{name: arrays[f"{kind}_{name}"] for name in ("roots", "members", "by_member")})


def few_arrays(*, better: Sorted, hot: np.ndarray) -> dict[str, np.ndarray]:
    """What of a segment is never cut into parts, by the names in its file."""
    return {"better_hashes": better[0], "better_rows": better[1], "hot": hot}


def link_arrays(kind: str, links: Links) -> dict[str, np.ndarray]:
    """Links by the names in their file; the kind is ``measured`` or ``similar``."""
    return {f"{kind}_{name}": values for name, values in vars(links).items()}


def write_segment(store: Store, segment: Segment) -> tuple[dict[str, Any], StoredFile]:
    """A segment of one part as one file, and how a state names it."""
    ((band_hashes, band_rows),), ((exact_hashes, exact_rows),) = segment.bands, segment.exact
    ((first_row, sketches),) = segment.sketches
    (measured,), (similar,) = segment.measured, segment.similar
    arrays = {
        "band_hashes": band_hashes,
        "band_rows": band_rows,
        "exact_hashes": exact_hashes,
        "exact_rows": exact_rows,
        "sketches": sketches.ravel(),
        **link_arrays("measured", measured),
        **link_arrays("similar", similar),
        **few_arrays(better=segment.better, hot=segment.hot),
    }
    file = store.write_bytes(pack(arrays), KIND, "arrow")
    named = file.to_json()
    return {
        "first_row": first_row,
        "num_rows": segment.num_rows,
        "bands": [named],
        "exact": [named],
        "sketches": [[first_row, named]],
        "measured": [named],
        "similar": [named],
        "few": named,
    }, file


def write_state(
    store: Store,
    *,
    shards: Sequence[dict[str, Any]],
    segments: Sequence[dict[str, Any]],
    sizes: dict[int, int],
) -> StoredFile:
    """A state as a file.

    Parameters
    ----------
    shards : the text shards' files in the order of their rows.
    sizes : number of records behind a keeper, to the number of such keepers.
    """
    by_size = {str(size): number for size, number in sizes.items() if number}
    document = {"format": FORMAT, "shards": list(shards), "segments": list(segments), "sizes": by_size}
    return store.write_json(document, KIND)


def size_bytes(state: dict[str, Any]) -> int:
    """What the files of a state's segments take on disk."""
    files: dict[str, int] = {}
    for one in state["segments"]:
        links = [*one["measured"], *one["similar"]]
        for file in [*one["bands"], *one["exact"], *(file for _, file in one["sketches"]), *links, one["few"]]:
            files[file["name"]] = file["size_bytes"]
    return sum(files.values())
