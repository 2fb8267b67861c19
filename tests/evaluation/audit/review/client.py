"""A browser's side of the page, without a browser."""

import http.client
import json
from dataclasses import dataclass
from typing import Any

from genmix_transforms.evaluation.audit.review.serving import ReviewServer


@dataclass
class Client:
    """What a page does: sends the token, and its origin with a change. ``headers`` replace these; None: none."""

    server: ReviewServer

    def __call__(
        self, method: str, path: str, body: Any = None, **headers: str | None
    ) -> tuple[int, Any, dict[str, str]]:
        host = f"127.0.0.1:{self.server.port}"
        sent: dict[str, str | None] = {"Host": host, "Authorization": f"Bearer {self.server.token}"}
        if method == "POST":
            sent |= {"Origin": f"http://{host}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if raw is not None and "Content-Length" not in headers and "Content_Length" not in headers:
                sent["Content-Length"] = str(len(raw))
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(raw)
            answer = connection.getresponse()
            content = answer.read()
            kind = answer.getheader("Content-Type") or ""
            return (
                answer.status,
                json.loads(content) if kind == "application/json" else content,
                dict(answer.getheaders()),
            )
        finally:
            connection.close()
