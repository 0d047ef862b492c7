"""Secrets are hidden by kind, and nothing else is."""

import pytest
from omegaconf import OmegaConf

from verl_relift.run.composition import Arguments
from verl_relift.run.redact import HIDDEN, names_secret, redact, redact_text


@pytest.mark.parametrize(
    "key",
    [
        "SECRET",
        "TOKEN",
        "PASSWORD",
        "HF_TOKEN",
        "WANDB_API_KEY",
        "OPENAI_API_KEY",
        "api_key",
        "apiKey",
        "apikey",
        "clientSecret",
        "client_secret_id",
        "db_passwd",
        "AWS_SECRET_ACCESS_KEY",
        "aws_access_key_id",
        "private_key",
        "credentials",
        "auth_tokens",
        "Authorization",
        "session-cookie",
    ],
)
def test_secrets_by_their_names(key):
    assert names_secret(key)
    assert redact({key: "x1"}) == {key: HIDDEN}
    assert redact({"deep": [{key: 12345}]}) == {"deep": [{key: HIDDEN}]}
    assert redact({key: None}) == {key: None}


@pytest.mark.parametrize(
    "key",
    [
        "max_tokens",
        "budget_tokens",
        "ppo_max_token_len_per_gpu",
        "eos_token",
        "pad_token_id",
        "max_num_batched_tokens",
        "prompt_key",
        "reward_fn_key",
        "api_key_env",
        "password_file",
        "tokenizer_path",
        "token2text",
        "monkey",
        "author",
    ],
)
def test_other_names_are_left_alone(key):
    assert not names_secret(key)
    assert redact({key: "value"}) == {key: "value"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pa55@host/v1", "https://me:***@host/v1"),
        ("postgresql://u:p:q@db:5432/x", "postgresql://u:***@db:5432/x"),
        ("redis://:pw@cache:6379", "redis://:***@cache:6379"),
        ("https://me:p@ss@host/v1", "https://me:***@host/v1"),
        ("https://ghp_0123456789@github.com/a/b", "https://***@github.com/a/b"),
        ("ssh://git@host/repo", "ssh://git@host/repo"),
        ("s3://bucket/key=3/data.parquet", "s3://bucket/key=3/data.parquet"),
        ("https://host/v1?api_key=abc&n=3", "https://host/v1?api_key=***&n=3"),
        ("https://b/x?X-Amz-Signature=0f0f&X-Amz-Date=1", "https://b/x?X-Amz-Signature=***&X-Amz-Date=1"),
        ("host=db password=hunter2 port=1", "host=db password=*** port=1"),
        ("Authorization: Bearer abcdef", "Authorization: Bearer ***"),
        ("use hf_abcdefghijklmnopqrst here", "use *** here"),
        ("sk-proj-abcdefghijklmnopq", "***"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("outputs/relift/run@3", "outputs/relift/run@3"),
        ("data.train_batch_size=8", "data.train_batch_size=8"),
        ("a user@example.com writes", "a user@example.com writes"),
    ],
)
def test_secrets_by_the_form_of_a_value(text, shown):
    assert redact_text(text) == shown
    assert redact(["x", {"url": text}]) == ["x", {"url": shown}]


def test_what_is_under_env_vars_is_hidden_and_its_names_are_not():
    config = {"runtime_env": {"env_vars": {"PLAIN": "1", "EMPTY": "", "NESTED": {"a": [1]}}, "working_dir": "/x"}}
    expected = {"PLAIN": HIDDEN, "EMPTY": "", "NESTED": {"a": [HIDDEN]}}
    assert redact(config) == {"runtime_env": {"env_vars": expected, "working_dir": "/x"}}


def test_redacting_twice_changes_nothing():
    once = redact({"password": "x", "url": "https://me:pw@host?token=1", "list": ["https://a:b@c"]})
    assert redact(once) == once


def test_nothing_of_a_configuration_without_secrets_is_hidden():
    config = OmegaConf.to_container(Arguments("quickstart").compose("cpu"), throw_on_missing=False)
    assert redact(config) == config
