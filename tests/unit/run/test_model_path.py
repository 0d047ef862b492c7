"""A model that is not there is named in one line, with what it was probably meant to be."""

import socket
from pathlib import Path

import httpx
import pytest
from huggingface_hub import constants

from verl_relift.run.model_path import path_problems
from verl_relift.run.near import nearest

KEY = "actor_rollout_ref.model.path"


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Check a path; returns the line, if any, and what was said before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def asked(path: str) -> tuple[str | None, list[str]]:
        said = []
        found = list(path_problems(KEY, str(path), said.append))
        assert len(found) <= 1 and all("\n" not in line for line in found)
        return (found[0] if found else None), said

    return asked


def answer(monkeypatch, reply: httpx.Response | Exception) -> list[int]:
    """Let the hub answer like this; returns the number of retries of each request."""
    import huggingface_hub.utils as utils

    retries = []

    def backoff(method, url, *, max_retries, **_):
        retries.append(max_retries)
        if isinstance(reply, Exception):
            raise reply
        reply.request = httpx.Request(method, url)
        return reply

    monkeypatch.setattr(utils, "http_backoff", backoff)
    return retries


def test_a_folder_is_there(ask, tmp_path):
    (tmp_path / "tiny").mkdir()
    assert ask(tmp_path / "tiny") == (None, []) == ask("tiny") == ask("./tiny")


def test_a_wrong_path_is_no_hub_id(ask, tmp_path):
    for name in ("new/d/tiny", "new/d/other", "new/d/.tinyy-hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "new/d/tinyyy").write_text("a file")
    meant = f"did you mean {tmp_path}/new/d/tiny?"
    assert ask(f"{tmp_path}/new/d/tinyy") == (f"{KEY}={tmp_path}/new/d/tinyy: no such folder; {meant}", [])
    assert ask(f"{tmp_path}/nwe/d/tinyy")[0].endswith(meant)  # a folder above is misspelt too
    assert ask("./new/d/tinyy")[0].endswith("did you mean new/d/tiny?")
    give = "give a Hugging Face folder or hub id (OWNER/NAME)"
    for path in (f"{tmp_path}/zzz", "zzz", "a/b/c", "~/no/such/model", "../x"):
        assert ask(path) == (f"{KEY}={path}: no such folder; {give}", []), path
    assert ask(" ") == (f"{KEY} is empty; {give}", [])
    assert ask("new/d/tinyyy") == (f"{KEY}=new/d/tinyyy is a file; give its folder, new/d", [])


def test_a_folder_that_has_the_model_further_in_or_only_an_adapter(ask, tmp_path):
    model = tmp_path / "run/global_step_8/actor/model/huggingface"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("8")
    for folder in ("run", "run/global_step_8", "run/global_step_8/actor", "run/global_step_8/actor/model"):
        there = Path(folder, model.relative_to(tmp_path / folder)) if folder != "run" else model.relative_to(tmp_path)
        assert ask(folder) == (f"{KEY}={folder} has no config.json; did you mean {there}?", [])
    assert ask(model) == (None, [])
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/adapter_config.json").write_text("{}")
    assert ask("lora")[0].startswith(f"{KEY}=lora is a LoRA adapter, not a model; merge it")


def test_a_hub_that_cannot_be_reached_is_said_with_the_way_out(ask, monkeypatch):
    retries = answer(monkeypatch, httpx.ConnectError("Name or service not known"))
    line, said = ask("Qwen/Qwen2.5-7B")
    assert said == ["asking the Hugging Face hub for Qwen/Qwen2.5-7B ..."] and retries == [1]
    assert line.startswith(f"{KEY}=Qwen/Qwen2.5-7B: no such folder, and the Hugging Face hub can't be reached (")
    assert "`hf download Qwen/Qwen2.5-7B`" in line and "HF_HUB_OFFLINE=1" in line


def test_a_real_request_to_a_port_that_is_closed_is_such_a_hub(ask, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda repository, file: f"http://127.0.0.1:{port}/{repository}")
    line, said = ask("owner/model")
    assert "can't be reached (ConnectError)" in line and len(said) == 1


@pytest.mark.parametrize(
    ("status", "headers", "text"),
    [
        (200, {}, None),
        (404, {"X-Error-Code": "EntryNotFound"}, None),
        (404, {"X-Error-Code": "RepoNotFound"}, "the hub has no such model, or a private one; correct the name"),
        (403, {"X-Error-Code": "GatedRepo"}, "accept its terms there, then `hf auth login` and `hf download a/b`"),
        (503, {}, "can't be reached (HfHubHTTPError)"),
    ],
)
def test_what_the_hub_answers_is_told_apart(status, headers, text, ask, monkeypatch):
    answer(monkeypatch, httpx.Response(status, headers=headers))
    line, said = ask("a/b")
    assert len(said) == 1 and (line is None if text is None else text in line), line


def test_a_cached_model_is_not_asked_for_and_offline_nothing_is(ask, monkeypatch, tmp_path):
    retries = answer(monkeypatch, httpx.ConnectError("not asked"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: f"/cache/{file}")
    assert ask("a/b") == (None, []) and retries == []
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line, said = ask("a/b")
    assert "with HF_HUB_OFFLINE=1 only the cache is read, which lacks it; run `hf download a/b`" in line and said == []


def test_the_nearest_path_is_of_the_kind_that_is_wanted(tmp_path):
    (tmp_path / "train.parquet").write_text("")
    (tmp_path / "train.parquets").mkdir()
    assert nearest(tmp_path / "train.parqet", Path.is_file) == tmp_path / "train.parquet"
    assert nearest(tmp_path / "tran.parquet", Path.is_dir) == tmp_path / "train.parquets"
    assert nearest(tmp_path / "questions.parquet") is None
    assert nearest(Path("/")) is None and nearest(tmp_path / "no" / "such" / "folder") is None
