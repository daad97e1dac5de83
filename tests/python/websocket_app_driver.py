"""Drives the page's websocket-client sample: websocket_app_driver.py URL [TOKEN].

With TOKEN it authenticates as the sample does. Each line of stdin is a frame to send. What happens goes out as JSON
lines: {"said": "open"}, {"said": "frame", "frame"}, {"said": "error", "message"}, {"said": "close", "code"}.
Ends when the socket is closed, or with stdin.
"""
import json
import os
import sys
import threading

import websocket


def say(said, **fields):
    print(json.dumps({"said": said, **fields}), flush=True)


url, token = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None


def on_open(ws):
    say("open")
    if token is not None:
        # Authenticate after connection: the page's frame, which has no join_ref. [A04]
        ws.send(json.dumps({
            "topic": "auth",
            "event": "authenticate",
            "payload": {
                "token": token
            },
            "ref": "1"
        }))
    threading.Thread(target=send_lines, args=(ws,), daemon=True).start()


def send_lines(ws):
    for line in sys.stdin:
        ws.send(line.strip())
    ws.close()


def on_message(ws, message):
    say("frame", frame=json.loads(message))


def on_error(ws, error):
    say("error", message=str(error))


def on_close(ws, code, reason):
    say("close", code=code)


ws = websocket.WebSocketApp(
    url,
    on_open=on_open,
    on_message=on_message,
    on_error=on_error,
    on_close=on_close
)

ws.run_forever()
sys.stdout.flush()
# The thread may sit in a read of stdin, which the interpreter would wait for.
os._exit(0)
