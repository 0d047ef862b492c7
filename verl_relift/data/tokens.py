"""How many tokens a prompt and a demonstration have, counted as training counts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import DataError, Reason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenCounter:
    """Counts tokens with one tokenizer, many texts at a time.

    A prompt is counted as its chat template renders it, generation prompt included; a target as its text alone plus the
    end-of-sequence token that training adds.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        if tokenizer.chat_template is None:
            raise DataError(
                Reason.MISSING_COLUMN,
                "the tokenizer has no chat template",
                file=tokenizer.name_or_path,
                remedy="add one with data_preprocess.prepare_model --chat-template",
            )
        self._tokenizer = tokenizer
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)

    @classmethod
    def load(cls, name: str) -> TokenCounter:
        """From a folder or a hub id. Code that comes with a model is not run.

        Raises:
            DataError: it cannot be loaded, or has no chat template.
        """
        return cls(load_tokenizer(name))

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special tokens."""
        if self._backend is not None:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
            return [len(encoding) for encoding in encodings]
        return [len(self._tokenizer.encode(text, add_special_tokens=False)) for text in texts]

    def prompts(self, chats: Sequence[Sequence[tuple[str, str]]]) -> list[int]:
        """Tokens of each chat, rendered with the tokenizer's chat template."""
        return self.texts(self._render(chats))

    def prompts_over(self, chats: Sequence[Sequence[tuple[str, str]]], limit: int) -> dict[int, int]:
        """Which chats have more than `limit` tokens, and how many. Texts of no more bytes than that are not counted."""
        rendered = {i: text for i, text in enumerate(self._render(chats)) if len(text.encode()) > limit}
        counts = zip(rendered, self.texts(list(rendered.values())), strict=True)
        return {i: count for i, count in counts if count > limit}

    def _render(self, chats: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
        messages = [[{"role": role, "content": content} for role, content in chat] for chat in chats]
        if not messages:
            return []
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise DataError(
                Reason.WRONG_TYPE,
                f"the tokenizer's chat template refuses a prompt ({error})",
                file=self._tokenizer.name_or_path,
                remedy="a template without system role needs --template none",
            ) from error

    def targets(self, targets: Sequence[str | None]) -> list[int]:
        """Tokens of each target with its end-of-sequence token; 0 where there is none."""
        counts = iter(self.texts([target for target in targets if target is not None]))
        return [0 if target is None else next(counts) + 1 for target in targets]


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a folder or a hub id, without running code that comes with it.

    Raises:
        DataError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        problem = f"no tokenizer can be loaded ({str(error).splitlines()[0]})"
        raise DataError(
            Reason.UNREADABLE, problem, file=name, remedy="give a folder with tokenizer.json or a hub id"
        ) from error
