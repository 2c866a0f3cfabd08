"""Routes for what annotators ask for at every text: documented as all others, served without the framework's turns.

Solving a route's dependencies, and validating and copying its answer again, takes as long as all the rest of such a
request. A handler here gets the request, its path's parameters and its body, and returns a response.
"""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from service.api.access import known_parameters


class Direct(APIRoute):
    """A route whose handler takes ``request``, parameters of the path, and one body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What serves a request."""
        (body,) = self.dependant.body_params
        parameter = inspect.signature(self.endpoint).parameters[body.name]
        is_required = parameter.default is inspect.Parameter.empty
        model: TypeAdapter[Any] = TypeAdapter(parameter.annotation)

        async def handle(request: Request) -> Response:
            if request.scope["query_string"]:
                await known_parameters(request)
            given = None
            raw = await request.body()
            if raw or is_required:
                try:
                    given = model.validate_json(raw)
                except ValidationError as error:
                    wrong = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
                    raise RequestValidationError(wrong) from error
            response: Response = await self.endpoint(request=request, **request.path_params, **{body.name: given})
            return response

        return handle


def as_json(told: BaseModel) -> Response:
    """An answer that is written down once."""
    return Response(told.model_dump_json(by_alias=True), media_type="application/json")
