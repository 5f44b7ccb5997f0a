"""GatewayProtocol: what can't be a request is refused in OpenAI's shape, and recorded where its tenant is known."""

from __future__ import annotations

from http import HTTPStatus

from api.gateway.app import Gateway
from api.gateway.errors import HEADERS_TOO_LARGE, JSON_TYPE, MALFORMED_HTTP
from api.protocol import BoundedProtocol

REFUSALS = {problem.status: problem for problem in (HEADERS_TOO_LARGE, MALFORMED_HTTP)}


class GatewayProtocol(BoundedProtocol):
    """One connection."""

    def refusal(self, status: HTTPStatus) -> tuple[bytes, bytes]:
        """As the base says."""
        return JSON_TYPE[1], REFUSALS[status].body()

    def head_refused(self) -> None:
        """Have it recorded. A key that has not come yet has no tenant."""
        application = self.app
        if not isinstance(application, Gateway):
            return
        path = self.url.partition(b"?")[0].decode("latin-1")
        task = self.loop.create_task(application.head_refused(self.parser.get_method(), path, self.headers))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
