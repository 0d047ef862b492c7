"""One run at a time in a folder: two would write over each other's checkpoints and metrics.

    run.lock    held by the process of the training command; says where that process is, and is gone when it has ended

The kernel's lock on the file (flock) decides where both runs are on one machine, or on a file system that passes locks
on. It ends with its holder, whatever ended that. Where a file system does not know locks, or keeps them to each
machine, the file itself decides: its holder touches it every few seconds, and who finds a file of another machine
watches for that before taking the folder over.
"""

import atexit
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import psutil

LOCK = "run.lock"
BEAT_SECONDS = 15.0
# Without a beat for so long a holder on another machine counts as dead. NFS shows a change within a few seconds to who
# opens the file again, as the one who waits does.
SILENCE_SECONDS = 90.0

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class FolderInUse(RuntimeError):
    """Another run has the folder. The message names it and says what to do."""


class LockLost(RuntimeError):
    """Another run has taken the folder over while this one was held up."""


class RunLock:
    """The lock of a run's folder, from `acquire` to `release`."""

    def __init__(self, folder: Path):
        self.path = folder / LOCK
        self._owner = _this_process()
        self._file: int | None = None
        self._released = threading.Event()

    def acquire(self, silence: float = SILENCE_SECONDS) -> "RunLock":
        """Take the lock, or take it over from a run that has died.

        Args:
            silence: seconds without a sign of life after which a holder on another machine counts as dead.

        Raises:
            FolderInUse: another run has the folder.
            OSError: the file can't be written.
        """
        while self._file is None:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                self._claim(file, silence)
            except BaseException:
                os.close(file)
                raise
        os.register_at_fork(after_in_child=self._close)  # a child that outlives this process would keep the lock
        atexit.register(self.release)
        threading.Thread(target=self._beat, name="run-lock", daemon=True).start()
        return self

    def _claim(self, file: int, silence: float) -> None:
        locked = _flock(file)
        if locked is False:
            raise FolderInUse(self._in_use(_read(file)))
        holder = _read(file)
        uncertain = holder is not None and not _is_dead(holder, bool(locked))
        if uncertain:
            self._wait_for_silence(holder, silence)
        if not _is_at(self.path, file):
            os.close(file)  # its holder has just removed it
            return
        try:
            content = json.dumps(self._owner).encode()
            os.pwrite(file, content, 0)
            os.ftruncate(file, len(content))
            os.fsync(file)
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        if uncertain or locked is None:
            # Where no lock decides, the last of several that come at once does.
            time.sleep(min(2.0, silence / 10))
            if not self._is_own(file):
                raise FolderInUse(self._in_use(_read(file)))
        self._file = file

    def _wait_for_silence(self, holder: dict, silence: float) -> None:
        print(
            f"{self.path}: process {holder['pid']} on {holder['host']} had this folder; waiting up to {silence:.0f} s "
            "for a sign of life",
            file=sys.stderr,
        )
        deadline, seen = time.monotonic() + silence, self._last_beat()
        while time.monotonic() < deadline:
            time.sleep(min(1.0, silence / 10))
            beat = self._last_beat()
            if beat is None:
                return  # it has ended in order
            if beat != seen:
                raise FolderInUse(self._in_use(holder))

    def _last_beat(self) -> int | None:
        """Time of the last beat in the clock of the file's server; opening the file asks the server for it."""
        try:
            file = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(file).st_mtime_ns
        finally:
            os.close(file)

    def _in_use(self, holder: dict | None) -> str:
        if not holder:
            return f"trainer.default_local_dir={self.path.parent}: another run is starting in it; choose another folder"
        return (
            f"trainer.default_local_dir={self.path.parent} is in use by process {holder['pid']} on {holder['host']}, "
            f"started {holder['started']}; wait for it, end it, or choose another folder"
            f"{'' if holder['host'] == socket.gethostname() else f' (if that machine is gone, remove {self.path})'}"
        )

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                if self.held():
                    os.utime(self._file)
            except OSError:
                continue  # the file system is away for a moment; `require` says if it stays away

    def held(self) -> bool:
        """Whether the folder's lock is still this one."""
        return self._file is not None and self._is_own(self._file)

    def _is_own(self, file: int) -> bool:
        return _is_at(self.path, file) and _read(file) == self._owner

    def release(self) -> None:
        """Give the folder free. A lock that another run has taken over is left alone."""
        self._released.set()
        if self._file is not None:
            if self.held():
                self.path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


_held: RunLock | None = None


def hold(folder: Path) -> None:
    """Create the run's folder if need be, and keep it locked until this process ends.

    Raises:
        FolderInUse: another run has it.
        OSError: it can't be written.
    """
    global _held
    folder.mkdir(parents=True, exist_ok=True)
    _held = RunLock(folder).acquire()


def is_lost() -> bool:
    """Whether another run has taken over the folder that this one holds."""
    return _held is not None and not _held.held()


def require() -> None:
    """Check that the folder is still this run's, before something is written that another run would lose.

    Raises:
        LockLost: it is not.
    """
    if is_lost():
        raise LockLost(f"{_held.path} is no longer this run's: another run has taken over its folder")


def _flock(file: int) -> bool | None:
    """Lock the file: True, or False if another process has it locked, or None if the file system knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        if error.errno == errno.EWOULDBLOCK:
            return False
        raise


def _this_process() -> dict:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(process.create_time())),
        "created": process.create_time(),
        "boot": boot_id(),
        "pid_namespace": pid_namespace(),
    }


def boot_id() -> str:
    """Return what names the running kernel, from its start to its end."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def pid_namespace() -> str:
    """Return what names the set of processes that this one sees."""
    return os.readlink("/proc/self/ns/pid")


def is_running(pid: int, created: float) -> bool:
    """Whether a process of that number runs that was created then (Unix seconds)."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_dead(holder: dict, locked: bool) -> bool:
    """Whether the process that wrote `holder` has certainly ended; `locked`: this one now has the kernel's lock."""
    if holder["boot"] != boot_id():
        return False  # on another machine, or on this one before it was started again
    return locked or (holder["pid_namespace"] == pid_namespace() and not is_running(holder["pid"], holder["created"]))


def _read(file: int) -> dict | None:
    """What a holder has written; None for an empty file, or one that was cut off while it was written."""
    try:
        holder = json.loads(os.pread(file, 4096, 0))
        return holder if holder.keys() == _this_process().keys() else None
    except (ValueError, AttributeError):
        return None


def _is_at(path: Path, file: int) -> bool:
    """Whether the open file is the one at `path`, not one that was removed from there."""
    try:
        there, here = os.stat(path), os.fstat(file)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
