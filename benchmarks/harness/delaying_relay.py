"""A TCP relay that delays and does not block: every piece goes on ``DELAY_S`` after it came, whatever is on its way.

    python benchmarks/harness/delaying_relay.py HOST:PORT TARGET_HOST:PORT DELAY_S      # each way; until SIGTERM

A line of namespaces has a rate but no delay of its own, and few kernels have netem.
"""

import asyncio
import socket
import sys
from asyncio import StreamReader, StreamWriter

_PIECE_BYTES = 1 << 16


async def forward(reader: StreamReader, writer: StreamWriter, delay_s: float) -> None:
    """Pass on what comes, each piece ``delay_s`` later, and then the end."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def deliver() -> None:
        while True:
            due_s, piece = await waiting.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        writer.close()

    delivery = asyncio.create_task(deliver())
    try:
        while piece := await reader.read(_PIECE_BYTES):
            waiting.put_nowait((loop.time() + delay_s, piece))
    except ConnectionError:  # the end, by other means
        pass
    waiting.put_nowait((loop.time() + delay_s, b""))
    await delivery


async def serve(listen: str, target: str, delay_s: float) -> None:
    """Relay every connection to ``listen`` on to ``target``, both ``host:port``."""
    (host, port), (target_host, target_port) = (text.rsplit(":", 1) for text in (listen, target))

    async def connected(reader: StreamReader, writer: StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(target_host, int(target_port))
        for end in (writer, far_writer):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = forward(reader, far_writer, delay_s), forward(far_reader, writer, delay_s)
        await asyncio.gather(*ways, return_exceptions=True)

    server = await asyncio.start_server(connected, host, int(port))
    print("relaying", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))
