"""TransferQueue's sockets take messages from processes of the run only."""

import os
import pickle
from pathlib import Path

import pytest
import transfer_queue.utils.zmq_utils as zmq_utils
import verl  # noqa: F401  loads the plugin
import zmq
from transfer_queue.utils.zmq_utils import ZMQMessage, ZMQMessageDecodeError

from verl_relift.upstream.fixes import transfer_queue
from verl_relift.upstream.registry import ORIGINALS

ADDRESS = "127.0.0.1"
upstreams = ORIGINALS["transfer_queue.utils.zmq_utils:create_zmq_socket"]


class Bomb:
    """Runs code in the process that unpickles it."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def context():
    made = zmq.Context()
    made.linger = 0  # what was refused stays with its sender
    yield made
    made.destroy(linger=0)


@pytest.fixture
def of_run(monkeypatch):
    """A function that makes this process one of a run, by the run's secret."""

    def join(secret: bytes) -> None:
        monkeypatch.setattr(transfer_queue, "derive", lambda purpose: secret)
        transfer_queue._server_keys.cache_clear()

    join(bytes(32))
    yield join
    transfer_queue._server_keys.cache_clear()


def server(context, create) -> tuple[zmq.Socket, str]:
    router = create(context, zmq.ROUTER, ADDRESS)
    return router, f"tcp://{ADDRESS}:{router.bind_to_random_port(f'tcp://{ADDRESS}')}"


def client(context, create, address: str) -> zmq.Socket:
    dealer = create(context, zmq.DEALER, ADDRESS, identity=b"TQ_STORAGE_1")
    dealer.connect(address)
    return dealer


def bomb(mark: Path) -> list[bytes]:
    return [b"\xc1\xfe\xed", pickle.dumps(Bomb(mark))]


def test_transfer_queue_still_takes_messages_from_anybody(context, tmp_path):
    """The day this fails, `fixes/transfer_queue.py` can go."""
    router, address = server(context, upstreams)
    peer = client(context, upstreams, address)
    peer.send_multipart(bomb(tmp_path / "mark"))
    assert router.poll(60_000)
    with pytest.raises((TypeError, ZMQMessageDecodeError)):  # after it has run
        ZMQMessage.deserialize(router.recv_multipart()[1:])
    assert (tmp_path / "mark").exists()


def test_processes_of_a_run_talk(context, of_run):
    create = zmq_utils.create_zmq_socket
    router, address = server(context, create)
    dealer = client(context, create, address)
    dealer.send(b"question")
    identity, question = router.recv_multipart()
    router.send_multipart([identity, b"answer"])
    assert (question, dealer.recv()) == (b"question", b"answer")


def test_threads_of_a_storage_process_talk(context, of_run):
    """They do so inside the process, with sockets of the same function that are clients on both sides."""
    front, back = (zmq_utils.create_zmq_socket(context, zmq.DEALER, ADDRESS) for _ in range(2))
    front.bind("inproc://workers")
    back.connect("inproc://workers")
    back.send(b"ready")
    assert front.recv() == b"ready"


def refused(router: zmq.Socket) -> zmq.Socket:
    """A socket that says when the server has refused a client."""
    return router.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)


@pytest.mark.parametrize("stranger", ["without keys", "of another run"])
def test_a_strangers_message_does_not_arrive(context, of_run, stranger, tmp_path):
    create = zmq_utils.create_zmq_socket
    router, address = server(context, create)
    events = refused(router)
    if stranger == "of another run":
        of_run(bytes(31) + b"\x01")
        peer = client(context, create, address)
    else:
        peer = client(context, upstreams, address)
    peer.send_multipart(bomb(tmp_path / "mark"))
    assert events.poll(60_000)
    assert not router.poll(0)
    router.disable_monitor()


def test_a_client_sends_nothing_to_a_server_of_a_stranger(context, of_run):
    """One who takes the port of a storage process that has ended."""
    router, address = server(context, upstreams)
    events = refused(router)
    dealer = client(context, zmq_utils.create_zmq_socket, address)
    dealer.send(b"answers of the model")
    assert events.poll(60_000)
    assert not router.poll(0)
    router.disable_monitor()
