"""A device that is asked over HTTP, by Python's own server: every measurement is given once, and written down before it is
sent. Arguments: port, folder, name; in the folder: `key`, `mode` (ok or a status), and `tls.pem` where it speaks TLS."""

import http.server
import pathlib
import ssl
import sys
import threading
import time

port, folder, name = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
given = folder / "given"
given.touch()
lock = threading.Lock()


class Device(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self):
        mode = (folder / "mode").read_text()
        if self.headers.get("Authorization") != "TOKEN " + (folder / "key").read_text().strip():
            return self.answer(401, "text/html", b"<html>key</html>")
        if self.path == "/api/v1/status.json":
            return self.answer(200, "application/json", b'{"sma_status_id":2,"sma_status":"running"}')
        if self.path != "/api/v1/measurement.json":
            return self.answer(404, "text/html", b"<html>nothing here</html>")
        if mode != "ok":
            return self.answer(int(mode), "text/html", b"<html>as told</html>")
        with lock:
            serial = len(given.read_bytes().splitlines())
            now = int(time.time())
            document = (
                '{"0-0:96.1.0":{"value":"%s"},"0-0:1.0.0":{"value":0,"time":%d},"1-0:1.8.0":{"value":%d,"time":%d},'
                '"api_version":"v1","name":"%s","sma_time":%d.5}' % (name, now, serial, now, name, serial)
            ).encode()
            with given.open("ab") as file:
                file.write(document + b"\n")
        self.answer(200, "application/json", document)

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        pass


server = Server(("127.0.0.1", port), Device)
if (folder / "tls.pem").exists():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("listens", flush=True)
server.serve_forever()
