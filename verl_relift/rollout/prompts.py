"""Questions as the model sees them."""

from typing import Any

from ..data.chat import PromptTooLong, prompt_ids


def prompt_token_ids(
    tokenizer, messages: list[dict[str, str]], template_kwargs: dict[str, Any], max_tokens: int
) -> list[int]:
    """Token ids of a question in the model's chat template, up to where the answer begins.

    Raises:
        PromptTooLong: there are more than `max_tokens`.
    """
    ids = prompt_ids(tokenizer, messages, **template_kwargs)
    if len(ids) > max_tokens:
        raise PromptTooLong(
            f"a prompt has {len(ids)} tokens, more than data.max_prompt_length={max_tokens}: "
            f"{str(messages[-1]['content'])[:80]!r}; raise the limit or set data.filter_overlong_prompts=true"
        )
    return ids
