"""A secret that the processes of a Ray cluster share, and nobody else has.

It is in the key-value store of Ray's head, so it needs no environment variable and no argument, on any number of nodes.
Who can talk to the cluster has it. That takes the token of the cluster, and whoever has the token can run code anyway.
"""

import functools
import hashlib
import secrets

import ray
from ray.experimental import internal_kv

_KEY, _NAMESPACE = b"secret", b"verl_relift"
_BYTES = 32


def derive(purpose: str, size: int = _BYTES) -> bytes:
    """Return `size` bytes for one purpose, from which nothing about those of another follows.

    Raises:
        RuntimeError: if this process is not connected to Ray.
    """
    if not ray.is_initialized():
        raise RuntimeError("not connected to Ray, which keeps the secret of the run; call ray.init() first")
    secret = _secret(ray.get_runtime_context().gcs_address)
    return hashlib.blake2b(purpose.encode(), key=secret, digest_size=size).digest()


@functools.cache
def _secret(cluster: str) -> bytes:
    """The secret of a cluster, made by whichever process asks first."""
    internal_kv._internal_kv_put(_KEY, secrets.token_bytes(_BYTES), overwrite=False, namespace=_NAMESPACE)
    return internal_kv._internal_kv_get(_KEY, namespace=_NAMESPACE)
