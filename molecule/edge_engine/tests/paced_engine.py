"""Stand-in for an engine that is never the bottleneck: streams chats as vLLM does, to many at once, at a given pace.

It shows what stands between it and a client; it generates nothing and has no batch and no queue. Arguments: address,
port, milliseconds to the first token, milliseconds between tokens.
"""

from __future__ import annotations

import asyncio
import json
import sys

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(told: object) -> bytes:
    """Write one event as one chunk of HTTP."""
    data = b"data: " + (told if isinstance(told, bytes) else json.dumps(told).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def piece(**choice: object) -> dict[str, object]:
    """Return a chunk of vLLM 0.32.0: as long, with the same fields."""
    index = {"index": 0, "logprobs": None, "finish_reason": None, "token_ids": None}
    chat = {"id": f"chatcmpl-{'0' * 32}", "object": "chat.completion.chunk", "created": 1790000000, "model": "paced"}
    return {**chat, "choices": [{**index, **choice}]}


ROLE, TOKEN = event(piece(delta={"role": "assistant", "content": ""})), event(piece(delta={"content": " word"}))


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection; every token has its moment, so that a late one does not move the next."""
    clock = asyncio.get_running_loop().time
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            tokens = int(json.loads(await reader.readexactly(length))["max_tokens"])
            due = clock() + FIRST_S
            writer.write(HEAD + ROLE)
            for _ in range(tokens):
                await asyncio.sleep(due - clock())
                writer.write(TOKEN)
                await writer.drain()
                due += GAP_S
            usage = {"prompt_tokens": 64, "completion_tokens": tokens, "total_tokens": 64 + tokens}
            writer.write(event({**piece(), "choices": [], "usage": usage}) + event(b"[DONE]") + b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    """Listen for ever."""
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]), backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    FIRST_S, GAP_S = (float(argument) / 1000 for argument in sys.argv[3:5])
    asyncio.run(main())
