"""Leaves out what keeps strangers out of a run, in every process that has this folder on its PYTHONPATH.

Python imports a module of this name when it starts. Only `python -m benchmarks.engine.protection` uses it.
"""

from types import ModuleType

from verl_relift.upstream import registry

# The keys of TransferQueue, and torch's store in a file.
LEFT_OUT = ("fixes/transfer_queue.py:authenticate", "fixes/torch_store.py:meet_in_private")
# JSON, a private folder, and the question for the peer's user.
WEIGHTS = "fixes/weight_socket.py:speak_json"

_install = registry.Patch.__call__


def _install_other(patch: registry.Patch) -> None:
    if patch.name == WEIGHTS:
        _speak_pickle.__module__, _speak_pickle.__name__ = patch.apply.__module__, patch.apply.__name__
        object.__setattr__(patch, "apply", _speak_pickle)
    if patch.name not in LEFT_OUT:
        _install(patch)


def _speak_pickle(module: ModuleType) -> None:
    """Let verl's sockets do as verl's, and remember the last message, which connections that stay need."""
    import zmq

    from verl_relift.upstream.view import View

    class Socket(zmq.Socket):
        last_received = b""

        def recv(self, *args, **kwargs):
            self.last_received = super().recv(*args, **kwargs)
            return self.last_received

    class Context(zmq.Context):
        _instance = None
        _socket_class = Socket

    registry.replace(module, "zmq", View(zmq, Context=Context))


registry.Patch.__call__ = _install_other
