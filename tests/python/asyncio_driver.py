"""Drives the page's Python classes: asyncio_driver.py URL TOKEN [HEARTBEAT_SECONDS].

Commands come as JSON lines on stdin: {"do": "join", "topic", "params"?}, {"do": "push", "topic", "event", "payload"},
{"do": "heartbeats", "count"}. What happened goes out as JSON lines: {"said": "connected" | "refused"},
{"said": "answer", "to": <line number>, ...}, {"said": "event", "topic", "event", "payload"}. Ends with stdin.
"""
import asyncio
import json
import sys

from seed_client import SeedSocket

EVENTS = [
    "presence_state", "presence_diff", "user:joined", "user:left", "phx_close", "phx_error",
    "document:uploaded", "document:processed", "workflow:started", "workflow:completed",
]


def say(said, **fields):
    print(json.dumps({"said": said, **fields}), flush=True)


class Driver:
    def __init__(self, socket):
        self.socket = socket

    def listen(self, channel):
        for event in EVENTS:
            # A coroutine function: the page's own lambda would end its receive loop. [X16]
            async def hear(payload, event=event):
                say("event", topic=channel.topic, event=event, payload=payload)
            channel.on(event, hear)

    async def join(self, topic, params=None):
        known = topic in self.socket.channels
        channel = self.socket.channel(topic, params)
        if not known:
            self.listen(channel)
        try:
            return {"status": "ok", "response": await channel.join()}
        except Exception as error:
            # After this the page's own code would find the channel and join it again with the same params.
            del self.socket.channels[topic]
            return {"status": "error", "message": str(error)}

    async def push(self, topic, event, payload):
        message = await self.socket.channels[topic].push(event, payload)
        return {"frame": vars(message)}

    async def heartbeats(self, count):
        while self.socket.beats < count:
            await asyncio.sleep(0.01)
        return {"beats": self.socket.beats}


class CountingSocket(SeedSocket):
    """Counts the heartbeats that were answered."""

    beats = 0

    async def push_and_wait(self, message):
        reply = await super().push_and_wait(message)
        if message.event == "heartbeat":
            assert reply.payload == {"status": "ok", "response": {}}, reply
            self.beats += 1
        return reply


async def main(url, token, heartbeat_seconds="30"):
    socket = CountingSocket(url, {"token": token})
    socket.heartbeat_seconds = float(heartbeat_seconds)
    try:
        await socket.connect()
    except Exception as error:
        return say("refused", error=type(error).__name__, message=str(error))
    say("connected")
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    driver = Driver(socket)
    number = 0
    while line := await stdin.readline():
        number += 1
        command = json.loads(line)
        do = getattr(driver, command.pop("do"))
        say("answer", to=number, **await do(**command))
    await socket.ws.close()


asyncio.run(main(*sys.argv[1:]))
