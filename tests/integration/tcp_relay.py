"""TcpRelay: stands between a device and its server, as a slow link, or one that is cut when it is told to."""

import contextlib
import select
import socket
import threading
import time


class TcpRelay:
    """Forwards connections to ``target`` (``host:port``), ``up_bytes_per_s`` to it where a rate is given.

    Attributes:
        address: where to connect to.
        num_cuts: connections cut so far.
    """

    def __init__(self, target: str, up_bytes_per_s: float | None = None) -> None:
        self.up_bytes_per_s = up_bytes_per_s
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._at_reply_bytes: int | None = None
        self.num_cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at_next_reply(self, num_bytes: int) -> None:
        """Cut instead of delivering the next piece from the server of at least ``num_bytes`` bytes."""
        self._at_reply_bytes = num_bytes

    def close(self) -> None:
        """Take no further connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._forward, args=(device,), daemon=True).start()

    def _forward(self, device: socket.socket) -> None:
        either_end_may_go = contextlib.suppress(ConnectionError)
        with device, either_end_may_go, socket.create_connection(self._target) as server:
            while True:
                ready, _, _ = select.select([device, server], [], [])
                for source, sink in ((device, server), (server, device)):
                    if source not in ready:
                        continue
                    piece = source.recv(1 << 16)
                    if source is server and self._at_reply_bytes is not None and len(piece) >= self._at_reply_bytes:
                        self._at_reply_bytes = None
                        self.num_cuts += 1
                        return
                    if not piece:
                        return
                    if source is device and self.up_bytes_per_s:
                        time.sleep(len(piece) / self.up_bytes_per_s)  # as long as a link of this rate is busy with it
                    sink.sendall(piece)
