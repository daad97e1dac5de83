"""The Python client of the seed page, word for word, and below it the two methods that the page forgot. [X15]"""

# >>> the page
import asyncio
import json
import websockets
from typing import Dict, Any, Callable, Optional
from dataclasses import dataclass
from enum import Enum

class EventType(Enum):
    JOIN = "phx_join"
    LEAVE = "phx_leave"
    REPLY = "phx_reply"
    ERROR = "phx_error"
    CLOSE = "phx_close"
    HEARTBEAT = "heartbeat"

@dataclass
class Message:
    topic: str
    event: str
    payload: Dict[str, Any]
    ref: Optional[str] = None
    join_ref: Optional[str] = None

class PhoenixChannel:
    def __init__(self, socket: 'PhoenixSocket', topic: str, params: Dict[str, Any] = None):
        self.socket = socket
        self.topic = topic
        self.params = params or {}
        self.join_ref = None
        self.callbacks: Dict[str, list[Callable]] = {}
        self.joined = False
        
    async def join(self):
        self.join_ref = self.socket.make_ref()
        message = Message(
            topic=self.topic,
            event=EventType.JOIN.value,
            payload=self.params,
            ref=self.socket.make_ref(),
            join_ref=self.join_ref
        )
        
        response = await self.socket.push_and_wait(message)
        if response.payload.get("status") == "ok":
            self.joined = True
            return response.payload.get("response", {})
        else:
            raise Exception(f"Failed to join channel: {response.payload}")
    
    def on(self, event: str, callback: Callable):
        if event not in self.callbacks:
            self.callbacks[event] = []
        self.callbacks[event].append(callback)
    
    async def push(self, event: str, payload: Dict[str, Any]):
        if not self.joined:
            raise Exception("Must join channel before pushing events")
            
        message = Message(
            topic=self.topic,
            event=event,
            payload=payload,
            ref=self.socket.make_ref(),
            join_ref=self.join_ref
        )
        
        return await self.socket.push_and_wait(message)
    
    def trigger(self, event: str, payload: Dict[str, Any]):
        if event in self.callbacks:
            for callback in self.callbacks[event]:
                asyncio.create_task(callback(payload))

class PhoenixSocket:
    def __init__(self, url: str, params: Dict[str, Any] = None):
        self.url = url
        self.params = params or {}
        self.ws = None
        self.channels: Dict[str, PhoenixChannel] = {}
        self.ref_counter = 0
        self.pending_replies: Dict[str, asyncio.Future] = {}
        
    async def connect(self):
        url_with_params = f"{self.url}?{self._encode_params(self.params)}"
        self.ws = await websockets.connect(url_with_params)
        asyncio.create_task(self._receive_loop())
        asyncio.create_task(self._heartbeat_loop())
        
    async def _receive_loop(self):
        async for message in self.ws:
            data = json.loads(message)
            msg = Message(**data)
            
            # Handle replies
            if msg.ref and msg.ref in self.pending_replies:
                self.pending_replies[msg.ref].set_result(msg)
            
            # Route to channel
            if msg.topic in self.channels:
                self.channels[msg.topic].trigger(msg.event, msg.payload)
    
    async def push_and_wait(self, message: Message) -> Message:
        future = asyncio.Future()
        self.pending_replies[message.ref] = future
        
        await self.ws.send(json.dumps({
            "topic": message.topic,
            "event": message.event,
            "payload": message.payload,
            "ref": message.ref,
            "join_ref": message.join_ref
        }))
        
        try:
            return await asyncio.wait_for(future, timeout=5.0)
        except asyncio.TimeoutError:
            del self.pending_replies[message.ref]
            raise
    
    def channel(self, topic: str, params: Dict[str, Any] = None) -> PhoenixChannel:
        if topic not in self.channels:
            self.channels[topic] = PhoenixChannel(self, topic, params)
        return self.channels[topic]
    
    def make_ref(self) -> str:
        self.ref_counter += 1
        return str(self.ref_counter)
# <<< the page

from urllib.parse import urlencode


class SeedSocket(PhoenixSocket):
    """`connect` calls these two; the page does not have them."""

    heartbeat_seconds = 30.0

    def _encode_params(self, params: Dict[str, Any]) -> str:
        return urlencode(params)

    async def _heartbeat_loop(self):
        while True:
            await asyncio.sleep(self.heartbeat_seconds)
            await self.push_and_wait(Message(topic="phoenix", event=EventType.HEARTBEAT.value, payload={}, ref=self.make_ref()))
