"""A queue's answers as files, out and in, and its schema's next version: what ``winnow label`` does with files."""

import json
import threading
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Response
from fastapi import Path as InPath
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import StreamingResponse

from catalog.errors import ConfigError, TransientError
from labeling import queue
from labeling.exchange import pair_of, worded
from labeling.exchange.label_studio import labeling_config
from labeling.schema import LabelSchema
from labeling.slots import checked_text
from service.api.access import Catalogued, Curator, Reviewer
from service.api.downloads import chunks
from service.api.queue_models import SchemaModel
from service.api.reviews import names_of
from service.auth import audit
from service.errors import Problem
from service.gate import MAX_IMPORT_BYTES

router = APIRouter(prefix="/queues/{queue_id}", tags=["exchange"])
QueueId = Annotated[str, InPath(max_length=36)]
Words = Annotated[str, Field(max_length=1_000)]
FormatName = Annotated[
    str, Query(alias="format", max_length=100, description="conll, csv, hf, jsonl, label_studio or prodigy")
]
Options = Annotated[
    list[Words] | None,
    Query(max_length=20, description="NAME=VALUE of the format, as often as wanted: docs/exchange.md"),
]
MAX_TOLD = 1_000
"""Answers that are none any more, and things not taken, that a reply lists; it counts all."""
MEDIA_TYPES = {
    ".jsonl": "application/x-ndjson",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".zip": "application/zip",
}
BODY = {
    "required": True,
    "description": f"the file, at most {MAX_IMPORT_BYTES} bytes",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
COUNTS = {
    "Winnow-Records": {"description": "records in the file", "schema": {"type": "integer"}},
    "Winnow-Answers": {"description": "answers in the file", "schema": {"type": "integer"}},
    "Winnow-Changed": {
        "description": "JSON: how many of what could not be written as it is, by what was done about it",
        "schema": {"type": "string"},
    },
}


class InvalidOut(BaseModel):
    """An answer that is none any more; its task is asked again."""

    record_id: str
    annotator: str
    answer: Any = Field(description="as it was given")
    reason: str


class SchemaChangedOut(BaseModel):
    """What a new schema has done to a queue, or would do."""

    version: int
    changes: list[str] = Field(description="a line for each difference that matters to answers")
    num_kept: int = Field(description="answers that stay as they are")
    num_migrated: int = Field(description="answers that are seen under other names now")
    num_invalid: int = Field(description="answers that are none any more")
    invalid: list[InvalidOut] = Field(description=f"the first {MAX_TOLD} of them")
    num_known: int = Field(description="known answers that have other names now")
    no_longer_known: list[str] = Field(description="records whose known answer is none any more: asked like all others")
    repeated: bool = Field(description="the queue had got this very schema before; nothing changed now")
    dry_run: bool


class AsideOut(BaseModel):
    """Something in a file that was not taken."""

    where: str = Field(description="its place in the file")
    reason: str


class ImportedOut(BaseModel):
    """What an import found and did."""

    num_records: int
    num_unanswered: int = Field(description="of those, with neither an answer nor a prediction")
    num_answers: int
    num_predictions: int
    num_suggestions: int = Field(description="predictions that are shown from now on, but for the hidden share")
    num_new: int = Field(description="answers that were stored and count, late ones included")
    num_late: int = Field(description="of those, beyond the overlap")
    num_history: int = Field(description="answers that were stored and do not count: retracted, or given again since")
    num_repeated: int = Field(description="answers that were there already")
    num_snapped: int = Field(description="spans widened to whole characters")
    reasons: dict[str, int] = Field(description="how much was not taken, and why")
    aside: list[AsideOut] = Field(description=f"the first {MAX_TOLD} of what was not taken")


async def uploaded(request: Request) -> bytes:
    """The body; the gate ends one that is too long. Read after the role was looked at."""
    return await request.body()


async def get_importing(request: Request) -> threading.Lock:
    """Held while this process reads a file: one at a time, since each takes memory and the interpreter's time."""
    found: threading.Lock = request.app.state.importing
    return found


@router.put("/schema", summary="Give a queue the next version of its schema")
def change_schema(
    catalog: Catalogued,
    who: Curator,
    queue_id: QueueId,
    request: SchemaModel,
    *,
    dry_run: Annotated[bool, Query(description="only say what would become of the answers")] = False,
) -> SchemaChangedOut:
    """No stored answer changes; each is seen through the versions. 409 where the version does not rise."""
    from workers.label_schema import replace_schema

    schema = LabelSchema.from_json(request.model_dump(exclude_none=True))
    done = replace_schema(catalog, queue_id=queue_id, schema=schema, dry_run=dry_run)
    told = {"version": schema.version, "changes": done.change.in_words(), "num_invalid": len(done.invalid)}
    if not (dry_run or done.repeated):
        _audit(catalog, who.user_id, "queue.schema_changed", queue_id, told)
    some = done.invalid[:MAX_TOLD]
    with catalog.read() as session:
        names = names_of(session, {one.annotator_id for one in some})
    invalid = [
        InvalidOut(
            record_id=one.record_id,
            annotator=names[one.annotator_id],
            answer=one.given,
            reason=one.reason or "",
        )
        for one in some
    ]
    return SchemaChangedOut(
        version=schema.version,
        changes=done.change.in_words(),
        num_kept=done.num_kept,
        num_migrated=done.num_migrated,
        num_invalid=len(done.invalid),
        invalid=invalid,
        num_known=done.num_known,
        no_longer_known=list(done.no_longer_known),
        repeated=done.repeated,
        dry_run=dry_run,
    )


@router.post(
    "/import",
    summary="Take answers and predictions out of a file",
    responses={413: {"model": Problem, "description": f"the file has more than {MAX_IMPORT_BYTES} bytes"}},
    openapi_extra={"requestBody": BODY},
)
def import_answers(
    catalog: Catalogued,
    who: Curator,
    importing: Annotated[threading.Lock, Depends(get_importing)],
    queue_id: QueueId,
    format_: FormatName,
    body: Annotated[bytes, Depends(uploaded)],
    option: Options = None,
    rename: Annotated[
        list[Words] | None, Query(max_length=1_000, description="OLD=NEW: a label of the file and the queue's")
    ] = None,
    name: Annotated[str | None, Query(min_length=1, max_length=200, description="what history calls the file")] = None,
) -> ImportedOut:
    """Labels that the queue does not have refuse the whole file; what else is no answer here is listed and left out.

    The same file again stores nothing twice.
    """
    from workers.label_exchange import import_file
    from workers.labeling import refresh_if_due

    if not importing.acquire(blocking=False):
        raise TransientError("another file is being imported; try again once it is done")
    try:
        with catalog.read() as session:
            schema = LabelSchema.from_json(queue.open_queue(session, queue_id).schema)
        with TemporaryDirectory(prefix="winnow-import-") as folder:
            reader = worded(format_, Path(format_), schema, option or [], "option")
            if reader.is_folder:
                raise ConfigError(f"{format_} is a folder of files; unpack it and run `winnow label import` on it")
            path = Path(folder) / f"body{reader.suffixes[0]}"
            path.write_bytes(body)
            renames = dict(pair_of(one, "rename", "OLD=NEW") for one in rename or [])
            source = checked_text("name", name or f"{format_} over HTTP", at_least=1, at_most=200)
            done = import_file(catalog, queue_id=queue_id, path=path, format_=reader, renames=renames, source=source)
    finally:
        importing.release()
    taken = done.taken
    told = {"name": source, "new": taken.num_new, "suggestions": done.num_suggestions}
    _audit(catalog, who.user_id, "queue.imported", queue_id, told)
    refresh_if_due(catalog, queue_id)
    return ImportedOut(
        num_records=done.num_items,
        num_unanswered=done.num_unanswered,
        num_answers=done.num_answers,
        num_predictions=done.num_predictions,
        num_suggestions=done.num_suggestions,
        num_new=taken.num_new,
        num_late=taken.num_late,
        num_history=taken.num_history,
        num_repeated=taken.num_repeated,
        num_snapped=done.num_snapped,
        reasons=dict(done.reasons),
        aside=[AsideOut(where=one["where"], reason=one["reason"]) for one in done.aside[:MAX_TOLD]],
    )


@router.get(
    "/export",
    summary="Read a queue's answers as a file",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "the file; a dataset folder as a zip archive",
            "headers": COUNTS,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
def export_answers(
    catalog: Catalogued, _who: Reviewer, queue_id: QueueId, format_: FormatName, option: Options = None
) -> StreamingResponse:
    """Every answer with who and when, or for CoNLL all of a record together. Headers count what is in the file."""
    from workers.label_export import export_answers as write

    try:
        with TemporaryDirectory(prefix="winnow-export-") as folder:
            with catalog.read() as session:
                found = queue.open_queue(session, queue_id, even_closed=True)
                schema = LabelSchema.from_json(found.schema)
                writer = worded(format_, Path(format_), schema, option or [], "option")
                suffix = "" if writer.is_folder else writer.suffixes[0]
                path, stem = Path(folder) / f"answers{suffix}", found.name
                written = write(session, found, path, writer)
            if writer.is_folder:
                path, suffix = _zipped(path), ".zip"
            # Open, it outlives its folder, and ends with the reply however that ends.
            file = path.open("rb")
    except OSError as error:
        raise TransientError(f"the file cannot be written ({error.strerror or error}); free disk space") from error
    headers = {
        "Content-Length": str(file.seek(0, 2)),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(stem + suffix, safe='')}",
        "Winnow-Records": str(written.num_items),
        "Winnow-Answers": str(written.num_answers),
        "Winnow-Changed": json.dumps(dict(written.changed)),
    }
    file.seek(0)
    media_type = MEDIA_TYPES.get("." + suffix.rpartition(".")[2], "text/plain; charset=utf-8")
    return StreamingResponse(chunks(file), media_type=media_type, headers=headers)


@router.get("/labeling-config", summary="Read the labeling config of a Label Studio project", response_class=Response)
def read_config(
    catalog: Catalogued,
    _who: Reviewer,
    queue_id: QueueId,
    text: Annotated[str, Query(min_length=1, max_length=100, description="option `text` of the export")] = "text",
) -> Response:
    """What the results of an export as `label_studio` refer to: make a project of it, then import the file."""
    with catalog.read() as session:
        schema = LabelSchema.from_json(queue.open_queue(session, queue_id, even_closed=True).schema)
    return Response(labeling_config(schema, text), media_type="application/xml")


def _audit(catalog: Any, actor: str, action: str, queue_id: str, detail: dict[str, Any]) -> None:
    with catalog.write() as session:
        now = catalog.now(session)
        audit(session, now=now, actor=actor, action=action, target=f"queue:{queue_id}", detail=detail)


def _zipped(folder: Path) -> Path:
    """A folder's files in one archive; Parquet is small already."""
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for one in sorted(folder.rglob("*")):
            if one.is_file():
                archive.write(one, one.relative_to(folder))
    return path
