"""The one table from errors to answers: ``{code, message}`` for the API, a page for people."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError as UnstorableError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from catalog.errors import ServiceError
from service.pages.rendering import render

HTTP_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "60"}, 503: {"Retry-After": "1"}}
NUM_PROBLEMS_SHOWN = 10
FOR_PROGRAMS = ("/api/", "/metrics", "/health", "/ready")
"""Paths whose errors programs read."""


class Problem(BaseModel):
    """What every failing request of the API gets."""

    code: str = Field(description="stable word for programs, e.g. not_found")
    message: str = Field(description="for people: the value, the legal range, the remedy")


PROBLEMS: dict[int | str, dict[str, object]] = {
    401: {"model": Problem, "description": "no valid token"},
    403: {"model": Problem, "description": "the token's role may not do this"},
    404: {"model": Problem, "description": "it does not exist, or is not yours to see"},
    409: {"model": Problem, "description": "the state forbids it; read again"},
    410: {"model": Problem, "description": "it existed and has ended"},
    422: {"model": Problem, "description": "the request is malformed, or a value is out of range"},
    503: {"model": Problem, "description": "passing trouble; try again"},
}
"""Documented answers of every API route."""


class Back(NamedTuple):
    """Where the page of an error leads to."""

    address: str
    words: str


START = Back("/", "Back to the start")
LISTS = {
    "/label": Back("/#queues", "Show the open labeling queues"),
    "/queues": Back("/#queues", "Show the open labeling queues"),
    "/datasets": Back("/#datasets", "Show the datasets"),
    "/runs": Back("/#runs", "Show the last runs"),
}
"""By the first part of an address, the list that what was looked for would be in."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, code and message of a failed request."""

    status: int
    code: str
    message: str


def answer_to(error: Exception) -> Answer:
    """What a caller is told about an error; unforeseen ones tell nothing."""
    if isinstance(error, ServiceError):
        return Answer(error.status, error.code, str(error))
    if isinstance(error, RequestValidationError):
        return Answer(422, "validation", _problems(error))
    if isinstance(error, HTTPException):
        return Answer(error.status_code, HTTP_CODES.get(error.status_code, "http"), str(error.detail))
    if isinstance(error, UnstorableError):
        return Answer(422, "data", "a value cannot be stored (a NUL, or a number out of range); remove it")
    return Answer(500, "internal", "the service failed; the log says why")


def error_response(request: Request, error: Exception) -> Response:
    """Render an error as JSON where programs ask, and as a page elsewhere."""
    answer = answer_to(error)
    headers = HEADERS.get(answer.status, {})
    if request.url.path.startswith(FOR_PROGRAMS):
        body = Problem(code=answer.code, message=answer.message).model_dump()
        return JSONResponse(body, status_code=answer.status, headers=headers)
    part = f"/{request.url.path.split('/')[1]}"
    back = LISTS.get(part, START) if answer.status == HTTPStatus.NOT_FOUND else START
    return render(request, "error.html", status_code=answer.status, headers=headers, answer=answer, back=back)


def _problems(error: RequestValidationError) -> str:
    # The input itself is left out: it may be long, and may be secret.
    found = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    more = len(found) - NUM_PROBLEMS_SHOWN
    return "; ".join(found[:NUM_PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
