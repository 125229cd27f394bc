"""A LANTorrent peer as the original's documentation describes one, and as simple as it can be.

    lantorrent_peer.py serve HASH PASSWORD PORT
    lantorrent_peer.py send HASH PASSWORD FILE HOST:PORT/PATH...

HASH is the signature's: sha1 (releases 2.6 to 2.8) or md5 (from 2.9 on). It knows nothing of what newer
peers say beyond the documentation: unknown fields of the header are passed on in destinations and
otherwise ignored. One connection at a time.
"""

import base64
import hashlib
import hmac
import json
import os
import socket
import sys

BLOCK = 128 * 1024


def sign(algorithm, password, text):
    text = text.replace("\r", "").replace("\n", "")
    digest = hmac.new(password.encode(), text.encode(), algorithm).digest()
    return base64.b64encode(digest).decode()


def read_line(stream):
    line = stream.readline(1 << 20)
    if not line:
        raise EOFError("the stream ended in the header")
    return line.decode()


def read_header(stream, algorithm, password):
    text = ""
    for _ in range(256):
        line = read_line(stream)
        if line.startswith("EOH : "):
            if not hmac.compare_digest(line[6:].strip(), sign(algorithm, password, text)):
                raise PermissionError("508")
            return json.loads(text)
        text += line
    raise ValueError("501")


def results(code, header, md5sum, message):
    for request in header["requests"]:
        yield {
            "code": code,
            "host": header["host"],
            "port": header["port"],
            "file": request["filename"],
            "id": request["id"],
            "message": message,
            "md5sum": md5sum,
        }


class Next:
    """The next endpoint of the chain that can be reached."""

    def __init__(self, header, algorithm, password, report):
        self.socket = None
        rest = list(header["destinations"])
        while rest and self.socket is None:
            first, rest = rest[0], rest[1:]
            try:
                self.socket = socket.create_connection((first["host"], first["port"]), 10)
            except OSError as error:
                for line in results(505, first, None, "Failed to connect: %s" % error):
                    report(line)
                continue
            head = dict(first)
            head["destinations"] = rest
            head["degree"] = header["degree"]
            head["length"] = header["length"]
            text = json.dumps(head)
            text += "\r\nEOH : %s\r\n" % sign(algorithm, password, text)
            self.socket.settimeout(60)
            self.socket.sendall(text.encode())

    def send(self, data):
        if self.socket is not None:
            self.socket.sendall(data)

    def finish(self, md5sum, report):
        if self.socket is None:
            return
        self.socket.sendall(json.dumps({"md5sum": md5sum}).encode())
        self.socket.shutdown(socket.SHUT_WR)
        for line in self.socket.makefile("rb"):
            line = json.loads(line.decode())
            # What newer peers say on the way is no result.
            if "code" in line:
                report(line)
        self.socket.close()


def receive(connection, algorithm, password):
    stream = connection.makefile("rb")

    def report(line):
        connection.sendall((json.dumps(line) + "\n").encode())

    header = read_header(stream, algorithm, password)
    names = [r["filename"] + (".lantorrent" if r["rename"] else "") for r in header["requests"]]
    files = [open(name, "wb") for name in names]
    following = Next(header, algorithm, password, report)
    digest = hashlib.md5()
    left = header["length"]
    while left > 0:
        data = stream.read(min(BLOCK, left))
        if not data:
            raise EOFError("the stream ended too early")
        following.send(data)
        for file in files:
            file.write(data)
        digest.update(data)
        left -= len(data)
    for file in files:
        file.close()
    theirs = json.loads(stream.read().decode())["md5sum"]
    following.finish(digest.hexdigest(), report)
    if theirs != digest.hexdigest():
        for name in names:
            os.unlink(name)
        for line in results(510, header, digest.hexdigest(), "Incorrect checksum"):
            report(line)
        return
    for request in header["requests"]:
        if request["rename"]:
            os.rename(request["filename"] + ".lantorrent", request["filename"])
    for line in results(0, header, digest.hexdigest(), "Success"):
        report(line)


def serve(algorithm, password, port):
    listener = socket.create_server(("", int(port)))
    while True:
        connection, _ = listener.accept()
        try:
            receive(connection, algorithm, password)
        except Exception as error:  # as the original: one connection's trouble is not another's
            print("failed:", repr(error), file=sys.stderr, flush=True)
        finally:
            connection.close()


def send(algorithm, password, path, targets):
    length = os.path.getsize(path)
    destinations = []
    for number, target in enumerate(targets):
        contact, _, name = target.partition("/")
        host, port = contact.rsplit(":", 1)
        destinations.append({
            "host": host,
            "port": int(port),
            "requests": [{"filename": "/" + name, "id": str(number), "rename": True}],
            "block_size": BLOCK,
            "degree": 1,
            "length": length,
        })
    lines = []
    header = {"destinations": destinations, "degree": 1, "length": length}
    following = Next(header, algorithm, password, lines.append)
    digest = hashlib.md5()
    with open(path, "rb") as file:
        while True:
            data = file.read(BLOCK)
            if not data:
                break
            following.send(data)
            digest.update(data)
    following.finish(digest.hexdigest(), lines.append)
    done = 0
    for line in lines:
        print(json.dumps(line))
        if line["code"] == 0 and line["md5sum"] == digest.hexdigest():
            done += 1
    print("sent to", done)
    return 0 if done == len(targets) else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:5])
    else:
        sys.exit(send(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:]))
