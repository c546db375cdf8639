"""Reads the events of a run with a library and prints a line of JSON for each: id, name, data.

    python read.py LIBRARY RESUME_URL TOKEN

The library is httpx-sse, sseclient-py or httpx. AgentOS's client reads streams with httpx, by lines.
"""
import json
import sys

import httpx
import httpx_sse
import requests
import sseclient

library, url, token = sys.argv[1:]
headers = {"Authorization": "Bearer " + token}


def show(id, name, data):
    print(json.dumps([id or "", name, data]), flush=True)


if library == "sseclient-py":
    for event in sseclient.SSEClient(requests.post(url, headers=headers, stream=True)).events():
        show(event.id, event.event, event.data)
else:
    with httpx.Client(timeout=60, headers=headers) as client:
        if library == "httpx-sse":
            with httpx_sse.connect_sse(client, "POST", url) as source:
                for event in source.iter_sse():
                    show(event.id, event.event, event.data)
        else:
            with client.stream("POST", url) as response:
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        show("", json.loads(line[6:])["event"], line[6:])
