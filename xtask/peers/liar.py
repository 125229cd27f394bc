"""A web server between a node and the real one, that lies as it is told.

    liar.py PORT UPSTREAM LIES

Every request is passed on to UPSTREAM (http://host:port) and the answer passed back, except for what
the file LIES says at that moment, one line for each lie:

    flip PATH TEXT      one bit after the first TEXT in the answer to PATH
    from PATH URL       the answer to PATH comes from another server

In iPXE scripts the name of the real server is replaced by ours, so that nodes go on asking here.
"""

import http.client
import http.server
import sys
import urllib.parse


def lies(path):
    """What to do with the answer to a path: list of (verb, argument)."""
    found = []
    with open(sys.argv[3], encoding="utf-8") as file:
        for line in file:
            words = line.split(maxsplit=2)
            if len(words) == 3 and words[1] == path:
                found.append((words[0], words[2].rstrip("\n")))
    return found


class Liar(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pass_on(self):
        path = urllib.parse.urlsplit(self.path).path
        upstream = sys.argv[2]
        told = lies(path)
        for verb, argument in told:
            if verb == "from":
                upstream = argument
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        headers = {name: value for name, value in self.headers.items()
                   if name.lower() not in ("host", "connection")}
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(upstream).netloc, timeout=30)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        for verb, argument in told:
            if verb == "flip":
                content = flip(content, argument.encode())
        host = self.headers.get("Host")
        if path == "/boot.ipxe" and host:
            content = content.replace(urllib.parse.urlsplit(sys.argv[2]).netloc.encode(),
                                      host.encode())
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date"):
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        said_len = answer.getheader("Content-Length") if is_head else str(len(content))
        self.send_header("Content-Length", said_len or "0")
        self.end_headers()
        if not is_head:
            self.wfile.write(content)
        connection.close()

    do_GET = do_HEAD = do_POST = pass_on


def flip(content, text):
    at = content.find(text)
    if at < 0:
        print("nothing to flip:", text, file=sys.stderr)
        return content
    at += len(text)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]


http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Liar).serve_forever()
