"""ClientProcesses: the clients of InProcessGrid in processes of this machine, several at a time.

Each process builds the clients from the configuration's text. Messages, states and replies cross as the bytes that
Flower makes of them, in frames of msgpack; nothing is unpickled. A process ends with this one, however that ends.
"""

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Self, TypeVar

import msgspec
import torch

from splitsem import redaction
from splitsem.errors import ConfigError, LinkError, SplitSemError
from splitsem.federated.flower import ClientApp, Context, Error, ErrorCode, Message, RecordDict, from_bytes, to_bytes
from splitsem.federated.in_process import InProcessGrid, answer_of, arrived, identify

log = logging.getLogger(__name__)
T = TypeVar("T")
_PATIENCE_S = 10.0


class _Start(msgspec.Struct, array_like=True):
    """What a process is told first."""

    config: str
    num_threads: int
    log_level: int
    secrets: list[str]


class _Ready(msgspec.Struct, array_like=True):
    """What a process answers when it has built the clients, or could not."""

    fault: str | None


class _Call(msgspec.Struct, array_like=True):
    node: int
    message_id: str
    message_type: str
    content: bytes
    node_config: dict[str, int]
    state: bytes


class _Answer(msgspec.Struct, array_like=True):
    """The client's state, None where it is lost, and its reply's content or its error."""

    state: bytes | None
    content: bytes | None = None
    error: tuple[int, str] = (0, "")


class ClientProcesses(InProcessGrid):
    """An InProcessGrid whose clients work in processes; same replies, to the last bit, in the same order.

    A client whose process dies answers with an error, and keeps its state of before; the next message starts another
    process. Use it as a context manager: the processes end with it.

    Args:
        command: starts a process that calls ``main``.
        config: what ``main``'s ``make_app`` makes the clients' app of.
        num_processes: how many clients work at a time, at most.
        num_clients: see InProcessGrid.
    """

    def __init__(self, command: Sequence[str], config: str, num_processes: int, num_clients: int) -> None:
        super().__init__(ClientApp(), num_clients)  # an app that nobody calls
        num_processes, num_threads = min(num_processes, num_clients), torch.get_num_threads()
        if num_processes * num_threads > (num_cores := os.cpu_count() or 1):
            log.warning(
                "%d client processes of %d threads share %d cores: device.num_threads=1, or fewer processes, is faster",
                *(num_processes, num_threads, num_cores),
            )
        # What the start of a client says, this process has said already.
        level = level if (level := log.getEffectiveLevel()) < logging.INFO else max(level, logging.WARNING)
        start = _Start(config, num_threads, level, sorted(redaction.known()))
        self._processes = [_Process(command, start) for _ in range(num_processes)]
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(num_processes, thread_name_prefix="client")
        for process in self._processes:
            self._idle.put(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.end()  # a thread that waits for an answer goes on with an error
        self._threads.shutdown(cancel_futures=True)

    def wait_ready(self) -> None:
        """Wait until all processes have built the clients. Raises ConfigError or LinkError where one cannot."""
        for process in self._processes:
            process.wait_ready()

    def _answers(self, messages: Iterable[Message]) -> list[tuple[Message, float]]:
        self.wait_ready()
        messages = list(messages)
        ids = [str(next(self._ids)) for _ in messages]
        return list(self._threads.map(self._answer, messages, ids))

    def _answer(self, message: Message, message_id: str) -> tuple[Message, float]:
        node, message_type = message.metadata.dst_node_id, message.metadata.message_type
        context = self.contexts[node]
        config = {name: int(value) for name, value in context.node_config.items()}
        process = self._idle.get()
        try:
            process.wait_ready()
            began = self._clock()
            call = _Call(node, message_id, message_type, to_bytes(message.content), config, to_bytes(context.state))
            answer = process.ask(call)
            took_s = self._clock() - began
        finally:
            self._idle.put(process)
        if answer.state is not None:
            context.state = from_bytes(answer.state)
        received = arrived(RecordDict(), node, message_type, message_id)
        if answer.content is None:
            return Message(Error(*answer.error), reply_to=received), took_s
        return Message(from_bytes(answer.content), reply_to=received), took_s


class _Process:
    """A process that serves, and is started again where it has ended.

    Args:
        command: see ClientProcesses.
        start: what it is told first.
    """

    def __init__(self, command: Sequence[str], start: _Start) -> None:
        self._command, self._start = command, start
        self._popen = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        self._is_ready = False
        path = os.pathsep.join(filter(None, sys.path))  # a user's model may lie wherever this process found it
        popen = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,  # what a terminal sends is for this process, which decides
        )
        assert popen.stdin
        with contextlib.suppress(OSError):  # wait_ready says how it ended
            _send(popen.stdin, self._start)
        return popen

    def wait_ready(self) -> None:
        """Wait until it has built the clients. Raises ConfigError or LinkError where it cannot."""
        if self._popen.poll() is not None:
            self.end()
            self._popen = self._started()
        if self._is_ready:
            return
        assert self._popen.stdout
        try:
            fault = _receive(self._popen.stdout, _Ready).fault
        except EOFError:
            status = self._popen.wait()
            raise LinkError(f"a client's process ended while it started (exit status {status})") from None
        if fault is not None:
            raise ConfigError(f"federated.client_processes: a process cannot build the clients: {fault}")
        self._is_ready = True

    def ask(self, call: _Call) -> _Answer:
        """What the client answers; an error where its process ends."""
        assert self._popen.stdin
        assert self._popen.stdout
        try:
            _send(self._popen.stdin, call)
            return _receive(self._popen.stdout, _Answer)
        except (OSError, EOFError):
            status = self._popen.wait()
        reason = f"the client's process ended (exit status {status}); another takes its place"
        return _Answer(None, error=(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason))

    def end(self) -> None:
        """End it, whatever it does."""
        self._popen.kill()
        with contextlib.suppress(OSError, ValueError):  # what was still to be written, or closed already
            self._popen.communicate(timeout=_PATIENCE_S)


def main(make_app: Callable[[str], ClientApp]) -> None:
    """Be a process of ClientProcesses, see ``serve``, which is reached over standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side decides
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    redaction.install()
    serve(make_app, sys.stdin.buffer, answers)


def serve(make_app: Callable[[str], ClientApp], calls: IO[bytes], answers: IO[bytes]) -> None:
    """Answer calls of ClientProcesses until the other side ends.

    Args:
        make_app: makes the app of ClientProcesses' ``config``.
        calls: where calls come from.
        answers: where answers go.
    """
    with contextlib.suppress(EOFError, BrokenPipeError):
        start = _receive(calls, _Start)
        redaction.remember(start.secrets)
        logging.basicConfig(level=start.log_level, format="[client process] %(message)s")
        try:
            app = make_app(start.config)
        except SplitSemError as exc:
            _send(answers, _Ready(str(exc)))
            return
        torch.set_num_threads(start.num_threads)
        identify()
        _send(answers, _Ready(None))
        while True:
            _send(answers, _answer_of(app, _receive(calls, _Call)))


def _answer_of(app: ClientApp, call: _Call) -> _Answer:
    context = Context(1, call.node, {**call.node_config}, from_bytes(call.state), {})
    reply = answer_of(app, arrived(from_bytes(call.content), call.node, call.message_type, call.message_id), context)
    state = to_bytes(context.state)
    if reply.has_error():
        return _Answer(state, error=(reply.error.code, reply.error.reason or ""))
    return _Answer(state, to_bytes(reply.content))


def _send(file: IO[bytes], what: msgspec.Struct) -> None:
    data = msgspec.msgpack.encode(what)
    file.write(len(data).to_bytes(8, "big"))
    file.write(data)
    file.flush()


def _receive(file: IO[bytes], kind: type[T]) -> T:
    """The next frame. Raises EOFError where the other side has ended."""
    size = int.from_bytes(head, "big") if len(head := file.read(8)) == 8 else 0
    if len(data := file.read(size)) < max(size, 1):
        raise EOFError
    return msgspec.msgpack.decode(data, type=kind)
