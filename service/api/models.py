"""A training's models as files."""

import tempfile
import zipfile
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter
from fastapi import Path as InPath
from starlette.responses import StreamingResponse

from catalog.errors import TransientError
from catalog.store import Store
from service.api.access import Catalogued, Curator
from service.api.downloads import chunks

router = APIRouter(prefix="/runs/{run_id}/models", tags=["runs"])


@router.get(
    "/{arm}",
    summary="Read a trained model as a zip archive",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "card, safetensors, config and tokenizer, as `winnow export-model` writes them",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
def download_model(
    catalog: Catalogued,
    _who: Curator,
    run_id: Annotated[str, InPath(max_length=36)],
    arm: Annotated[str, InPath(max_length=200)],
) -> StreamingResponse:
    """A model is there once its arm is trained, whatever became of the rest of the run."""
    from workers.models import stored_model

    with catalog.read() as session:
        files = stored_model(session, f"{run_id}/{arm}")
    store = Store.of(catalog.settings)
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it ends with the reply
        # Weights hardly get smaller.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, stored in sorted(files.items()):
                archive.writestr(name, store.read_bytes(stored))
    except OSError as error:
        raise TransientError(f"the file cannot be written ({error.strerror or error}); free disk space") from error
    headers = {
        "Content-Length": str(file.seek(0, 2)),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(f'{arm}.zip', safe='')}",
    }
    file.seek(0)
    return StreamingResponse(chunks(file), media_type="application/zip", headers=headers)
