"""Token counts of prompts and demonstrations, as training counts them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from .errors import DataError, Reason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Digits and letters of several scripts: a tokenizer may be made for one kind of text only.
_SOME_TEXT = "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ \u0430 \u3042 \u4e00 =+-"


class TokenCounter:
    """Counts tokens with one tokenizer, many texts at a time.

    A prompt is counted as its chat template renders it, including the generation prompt. A target is counted as its
    text and the end-of-sequence token that training adds.

    Args:
        tokenizer: a tokenizer with a chat template.
        template_kwargs: variables of the chat template, as in `data.apply_chat_template_kwargs`.

    Raises:
        DataError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template_kwargs: Mapping[str, Any] | None = None):
        if tokenizer.chat_template is None:
            raise DataError(
                Reason.MISSING_COLUMN,
                "the tokenizer has no chat template",
                file=tokenizer.name_or_path,
                remedy="add one with data_preprocess.prepare_model --chat-template",
            )
        self._tokenizer = tokenizer
        self._template_kwargs = dict(template_kwargs or {})
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)

    @classmethod
    def load(
        cls, name: str, chat_template: str | None = None, template_kwargs: Mapping[str, Any] | None = None
    ) -> Self:
        """Load a tokenizer from a folder or by a hub id, without running code that comes with it.

        Args:
            name: the folder or hub id.
            chat_template: takes the place of the tokenizer's own.
            template_kwargs: variables of the chat template.

        Raises:
            DataError: the tokenizer cannot be loaded, or has no chat template.
        """
        tokenizer = load_tokenizer(name)
        if chat_template is not None:
            tokenizer.chat_template = chat_template
        return cls(tokenizer, template_kwargs)

    @property
    def template(self) -> str:
        """The source of the chat template, of all of them if there are several."""
        return str(self._tokenizer.chat_template)

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""
        if self._backend is not None:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
            return [len(encoding) for encoding in encodings]
        return [len(self._tokenizer.encode(text, add_special_tokens=False)) for text in texts]

    def prompts(self, chats: Sequence[Sequence[tuple[str, str]]]) -> list[int]:
        """Count the tokens of each chat, a sequence of (role, content), rendered with the chat template.

        Raises:
            DataError: the chat template rejects a chat.
        """
        return self.texts(self._render(chats))

    def prompts_over(self, chats: Sequence[Sequence[tuple[str, str]]], limit: int) -> dict[int, int]:
        """Find the chats that have more than `limit` tokens.

        A token has at least one byte, so chats with at most `limit` bytes are not tokenized.

        Returns:
            Token counts by index into `chats`.
        """
        rendered = {i: text for i, text in enumerate(self._render(chats)) if len(text.encode()) > limit}
        counts = zip(rendered, self.texts(list(rendered.values())), strict=True)
        return {i: count for i, count in counts if count > limit}

    def answer_start(self) -> str:
        """Return what a prompt writes between a question and its answer.

        Raises:
            DataError: the chat template rejects a chat of one user message.
        """
        (prompt,) = self._render([[("user", "question")]])
        return prompt.rpartition("question")[2]

    def _render(self, chats: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
        messages = [[{"role": role, "content": content} for role, content in chat] for chat in chats]
        if not messages:
            return []
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **self._template_kwargs
            )
        except TemplateError as error:
            raise DataError(
                Reason.WRONG_TYPE,
                f"the tokenizer's chat template rejects a prompt ({error})",
                file=self._tokenizer.name_or_path,
                remedy="use --template none if the chat template has no system role",
            ) from error

    def targets(self, targets: Sequence[str | None]) -> list[int]:
        """Count the tokens of each target including its end-of-sequence token; 0 for None."""
        counts = iter(self.texts([target for target in targets if target is not None]))
        return [0 if target is None else next(counts) + 1 for target in targets]


def load_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    """Load a tokenizer from a folder or by a hub id, without running code that comes with it.

    Raises:
        DataError: the tokenizer cannot be loaded, or is empty.
    """
    from transformers import AutoTokenizer

    remedy = "give a folder with tokenizer.json or a hub id"
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # of the tokenizers library, a bare one
        problem = f"the tokenizer cannot be loaded ({str(error).strip().partition(chr(10))[0]})"
        raise DataError(Reason.UNREADABLE, problem, file=name, remedy=remedy) from error
    # Where its files are missing, transformers makes one of the model's kind that knows no text.
    if not tokenizer.encode(_SOME_TEXT, add_special_tokens=False):
        raise DataError(Reason.UNREADABLE, "the tokenizer's files are missing", file=name, remedy=remedy)
    return tokenizer
