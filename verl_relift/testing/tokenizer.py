"""A tokenizer that is trained within a second, for tests and benchmarks of data."""

from collections.abc import Iterator
from pathlib import Path


def make_tokenizer(folder: Path, texts: Iterator[str] | list[str], size: int) -> Path:
    """Train a byte-level BPE tokenizer with a chat template and save it in Hugging Face's format.

    Args:
        folder: the folder to save to.
        texts: the training texts.
        size: number of tokens in the vocabulary.

    Returns:
        The folder.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<think>", "</think>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant: "
    )
    tokenizer.save_pretrained(folder)
    return folder
