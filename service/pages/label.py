"""The annotator's page. The server draws the frame; ``static/label.js`` fetches tasks and keeps answers safe."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from labeling.schema import LabelSchema
from labeling.tasks import canonical
from service.api.access import Anyone, Catalogued
from service.api.queues import queue_with_dataset
from service.pages.rendering import render

router = APIRouter(prefix="/label", include_in_schema=False)


@router.get("/{queue_id}")
def show_label_page(request: Request, catalog: Catalogued, _who: Anyone, queue_id: str) -> Response:
    """One queue, one text at a time, by keyboard."""
    with catalog.read() as session:
        queue, dataset = queue_with_dataset(session, queue_id)
        schema = LabelSchema.from_json(queue.schema)
        return render(
            request, "label.html", queue=queue, dataset=dataset, schema=schema, schema_json=asked_by_page(schema)
        )


def asked_by_page(schema: LabelSchema) -> str:
    """What a page needs of a schema to take answers, as JSON; guidelines and examples are drawn by the server."""
    return canonical({key: value for key, value in schema.to_json().items() if key not in ("guidelines", "examples")})
