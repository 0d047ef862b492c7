"""Whether a model that is named by a folder or a hub id is there, before a library asks for it again and again."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from . import checkpoints
from .near import did_you_mean

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # owner/model
_GIVE = "give a Hugging Face folder or hub id (OWNER/NAME)"


def path_problems(key: str, path: str, say: Callable[[str], None]) -> Iterator[str]:
    """Yield why there is no model, or tokenizer, of a name.

    Args:
        key: of the configuration, which holds the name.
        path: the name: a folder or a hub id.
        say: tells the user that the hub is asked, which can take seconds.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() and (problem := _other_folder(folder)):
            yield f"{key}={path} {problem}"
        return
    if not path.strip():
        yield f"{key} is empty; {_GIVE}"
    elif folder.is_file():
        yield f"{key}={path} is a file; give its folder, {folder.parent}"
    else:
        meant = did_you_mean(path, Path.is_dir)
        if not _HUB_ID.fullmatch(path):
            yield f"{key}={path}: no such folder; {meant or _GIVE}"
        elif problem := _hub_problem(path, say):
            yield f"{key}={path}: no such folder{f' ({meant})' if meant else ''}, and {problem}"


def _other_folder(folder: Path) -> str | None:
    """Return what a folder without config.json is, where it is something that has a model or belongs to one."""
    if (folder / "adapter_config.json").is_file():
        return "is a LoRA adapter, not a model; merge it into its base model (PEFT: merge_and_unload), and give that"
    try:
        checkpoint = checkpoints.latest(folder)
    except checkpoints.CheckpointError:
        checkpoint = None
    for start in filter(None, (checkpoint, folder)):
        for inside in ("actor/model/huggingface", "model/huggingface", "huggingface"):
            if (start / inside / "config.json").is_file():
                return f"has no config.json; did you mean {start / inside}?"
    return None


def _hub_problem(repository: str, say: Callable[[str], None]) -> str | None:
    """Return why a model can be had neither from the hub nor from its cache; None if it can."""
    import httpx
    from huggingface_hub import constants, errors, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

    files = ("config.json", "tokenizer_config.json")
    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        return None
    fetch = f"`hf download {repository}`"
    if constants.HF_HUB_OFFLINE:
        return f"with HF_HUB_OFFLINE=1 only the cache is read, which lacks it; run {fetch} where the hub can be reached"
    say(f"asking the Hugging Face hub for {repository} ...")
    try:
        response = http_backoff(
            "GET",
            hf_hub_url(repository, files[0]),
            max_retries=1,  # the libraries' five for each file would take minutes
            headers=build_hf_headers(),
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            follow_redirects=True,
        )
        hf_raise_for_status(response)
    except errors.GatedRepoError:
        return f"the hub gives it only to whom it knows: accept its terms there, then `hf auth login` and {fetch}"
    except errors.RepositoryNotFoundError:
        return "the hub has no such model, or a private one; correct the name, or run `hf auth login`"
    except errors.RemoteEntryNotFoundError:
        return None  # a repository of something else, such as a tokenizer alone
    except (OSError, httpx.HTTPError, errors.HfHubHTTPError) as error:
        return (
            f"the Hugging Face hub can't be reached ({type(error).__name__}); run {fetch} where it can be, after which "
            "HF_HUB_OFFLINE=1 makes this command read the cache only; or give a folder"
        )
    return None
