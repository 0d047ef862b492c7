"""Replies on disk: one JSON file per question, settings and sample number.

The cache consists of files, not a database, because runs on several machines may share its folder over a network file
system.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from ...settings import TeacherSettings
from .client import Reply

logger = logging.getLogger(__name__)


def request_of(settings: TeacherSettings, messages: list[dict[str, str]], sample: int) -> dict[str, Any]:
    """Return what a reply depends on. The server's address is left out, because the model's name says who answers."""
    return {
        "model": settings.model,
        "messages": messages,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "sample": sample,
    }


class Cache:
    """Replies in a folder.

    A file that cannot be read is a miss, and a reply that cannot be written is not kept. Both are logged as warnings.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def path(self, request: dict[str, Any]) -> Path:
        """Return the file of a request."""
        name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.json"

    def get(self, request: dict[str, Any]) -> Reply | None:
        """Return the reply to a request, without usage, because this run does not pay for it; None if there is none."""
        path = self.path(request)
        try:
            entry = json.loads(path.read_bytes())
            if entry["request"] != request or not isinstance(entry["text"], str):
                raise ValueError("not the reply to this request")
            return Reply(entry["text"], bool(entry["truncated"]), None)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            logger.warning("teacher: %s cannot be read (%s); the sample is requested again", path, error)
            return None

    def put(self, request: dict[str, Any], reply: Reply) -> None:
        """Keep a reply. A concurrent reader sees the whole file or no file."""
        path = self.path(request)
        usage = {} if reply.usage is None else vars(reply.usage)
        entry = {"request": request, "text": reply.text, "truncated": reply.truncated, "usage": usage}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(entry, file)
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            logger.warning("teacher: %s cannot be written (%s); the reply is used but not cached", path, error)
