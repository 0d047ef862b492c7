"""Warnings of every library, which a dependency of vLLM silences."""

import logging
import os
from types import ModuleType

from ..registry import Where, patch

_MODULE = "model_hosting_container_standards.logging_config"


@patch(
    where=Where.EVERYWHERE,
    after=(_MODULE,),
    sets=("the level of Python's root logger and of its handlers: WARNING, Python's own",),
    upstream="a library that vLLM's server imports raises the root logger to ERROR for the whole process, so that no "
    "warning of any other library is seen; where its own variable asks for a level, that level stays",
    canary="test_a_dependency_of_vllm_still_silences_warnings",
)
def let_warnings_through(module: ModuleType) -> None:
    if {"SAGEMAKER_CONTAINER_LOG_LEVEL", "LOG_LEVEL"} & os.environ.keys():
        return
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        if handler.level == logging.ERROR:
            handler.setLevel(logging.NOTSET)
