"""One chat completion: the request, and everything that can come back instead of an answer."""

import asyncio
import email.utils
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import openai

from ...rewards.extract import THINK_CLOSE, THINK_OPEN
from ...settings import TeacherSettings
from .question import Failure

_CONNECT_TIMEOUT = 10.0  # seconds
# Limit of a reply's size: far more than max_tokens tokens need, far less than fills memory.
_REPLY_BYTES = 1 << 20
_REPLY_BYTES_PER_TOKEN = 256
_LONGEST_RETRY_AFTER = 3600.0  # seconds; a longer pause that a server asks for is cut to this
_MESSAGE_CHARS = 300  # logged characters of a server's error message

_OVERLOADED = (408, 409, 425, 429)
_ABOUT_THE_QUESTION = (400, 413, 422)


@dataclass(frozen=True)
class Usage:
    """Tokens of one request, as the server reports them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Reply:
    """A chat completion.

    Attributes:
        text: the content, preceded by the reasoning in `<think>` tags if the server reports it separately.
        truncated: whether the server stopped at max_tokens.
        usage: None if the server does not report it.
    """

    text: str
    truncated: bool
    usage: Usage | None


class RequestFailed(Exception):
    """A request brought no reply.

    Attributes:
        failure: the outcome for the question if the request is not retried.
        retry: whether a retry can help.
        server_down: whether requests for other questions would fail too.
        may_be_paid: whether the server may have generated tokens that it did not report.
        retry_after: seconds that the server asks to wait.
    """

    def __init__(
        self,
        message: str,
        failure: Failure,
        *,
        retry: bool,
        server_down: bool,
        may_be_paid: bool = False,
        retry_after: float = 0.0,
    ):
        super().__init__(message)
        self.failure = failure
        self.retry = retry
        self.server_down = server_down
        self.may_be_paid = may_be_paid
        self.retry_after = retry_after


class Client:
    """Sends requests to `settings.base_url`, each within `settings.timeout`, and never retries.

    Args:
        settings: the server and the sampling.
        api_key: None sends no key, whatever the environment holds.
    """

    def __init__(self, settings: TeacherSettings, api_key: str | None):
        self._settings = settings
        self._api_key = api_key
        self._limit = _REPLY_BYTES + _REPLY_BYTES_PER_TOKEN * settings.max_tokens
        parts = urlsplit(settings.base_url)
        self.address = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        # A redirect could send questions to a host that nobody configured.
        http = openai.DefaultAsyncHttpxClient(
            follow_redirects=False, timeout=openai.Timeout(settings.timeout, connect=_CONNECT_TIMEOUT)
        )
        # Without a key, the library reads OPENAI_API_KEY or refuses to start, so it gets a dummy that is never sent.
        self._openai = openai.AsyncOpenAI(
            base_url=settings.base_url, api_key=api_key or "none", max_retries=0, http_client=http
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._openai.close()

    async def complete(self, messages: list[dict[str, str]]) -> Reply:
        """Request one sample.

        Raises:
            RequestFailed: anything but a chat completion came back.
        """
        try:
            async with asyncio.timeout(self._settings.timeout):
                return parse_reply(await self._send(messages))
        except TimeoutError:
            message = f"no answer within method.teacher.timeout={self._settings.timeout:g} s"
        except openai.APIStatusError as error:
            raise self._status_failure(error) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            # The name is compared, because the HTTP library differs between versions of openai.
            if type(cause).__name__.startswith("Connect"):
                raise RequestFailed(
                    f"cannot connect ({_describe(cause)})", Failure.UNREACHABLE, retry=True, server_down=True
                ) from None
            message = f"connection lost ({_describe(cause)})"
        except RequestFailed:
            raise
        except Exception as error:
            # The HTTP library raises this when a body ends early or cannot be decoded.
            message = f"connection lost ({_describe(error)})"
        raise RequestFailed(message, Failure.UNREACHABLE, retry=True, server_down=True, may_be_paid=True) from None

    async def _send(self, messages: list[dict[str, str]]) -> bytes:
        settings = self._settings
        body = bytearray()
        async with self._openai.chat.completions.with_streaming_response.create(
            model=settings.model,
            messages=messages,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            extra_headers=None if self._api_key else {"Authorization": openai.omit},
        ) as response:
            async for chunk in response.iter_bytes():
                body += chunk
                if len(body) > self._limit:
                    raise _malformed(f"a reply of more than {self._limit:,} bytes")
        return bytes(body)

    def _status_failure(self, error: openai.APIStatusError) -> RequestFailed:
        status = error.status_code
        text = " ".join(str(error.message).split())
        if self._api_key:
            text = text.replace(self._api_key, "***")
        message = f"status {status}: {text[:_MESSAGE_CHARS]}"
        # An exhausted account is reported as 429 too, but waiting does not help.
        if (status in _OVERLOADED and error.code != "insufficient_quota") or status >= 500:
            return RequestFailed(
                message,
                Failure.UNREACHABLE,
                retry=True,
                server_down=status >= 500,
                retry_after=_retry_after(error.response.headers),
            )
        return RequestFailed(message, Failure.REFUSED, retry=False, server_down=status not in _ABOUT_THE_QUESTION)


def parse_reply(body: bytes) -> Reply:
    """Parse the body of a chat completion.

    Raises:
        RequestFailed: the body is not a chat completion.
    """
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        message = choice["message"]
        content, finish_reason = message["content"], choice.get("finish_reason")
        # vLLM and OpenRouter call it `reasoning`, other servers `reasoning_content`.
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        usage = reply.get("usage")
    except (ValueError, RecursionError) as error:
        raise _malformed(f"a reply that is not JSON ({type(error).__name__})") from None
    except (LookupError, TypeError, AttributeError) as error:
        raise _malformed(f"a reply that is not a chat completion ({type(error).__name__}: {error})") from None
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise _malformed(f"a reply whose content is of type {type(content).__name__}")
    if isinstance(reasoning, str) and reasoning.strip() and THINK_CLOSE not in content:
        thought = reasoning.replace(THINK_OPEN, "").replace(THINK_CLOSE, "").strip()
        content = f"{THINK_OPEN}\n{thought}\n{THINK_CLOSE}\n{content.lstrip()}"
    # JSON may escape half a surrogate pair, which neither a tokenizer nor a file accepts.
    text = content.encode("utf-8", "replace").decode("utf-8")
    return Reply(text, finish_reason == "length", _usage(usage))


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counts = value.get("prompt_tokens"), value.get("completion_tokens")
    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts):
        return None
    return Usage(*counts)


def _malformed(message: str) -> RequestFailed:
    return RequestFailed(message, Failure.MALFORMED, retry=True, server_down=True, may_be_paid=True)


def _retry_after(headers: Any) -> float:
    """Return the seconds in the header Retry-After, a number or a date; 0 if it is absent or unreadable."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(seconds, _LONGEST_RETRY_AFTER) if seconds > 0 else 0.0


def _describe(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"[:_MESSAGE_CHARS]
