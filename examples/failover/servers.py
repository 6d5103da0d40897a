"""Two servers that are well until told otherwise, and a hook that is told who is primary.

Writes the three addresses to stdout, one a line. The hook refuses what a leader of old says, by the epoch, and does a change once,
by its number; it writes a line for each call to the file that is named on the command line. When it has done a change, its answer is late, as on
a bad day: whoever called must call again to know.
"""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(BaseHTTPRequestHandler):
    """Answers whether it is well; POST /fail makes it ill, POST /mend well again."""

    well = {}

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        well = self.well.get(self.server.server_port, True)
        self.answer(200 if well else 503, "well" if well else "ill")

    def do_POST(self):
        well = self.path == "/mend"
        self.well[self.server.server_port] = well
        self.answer(200, f"{'well' if well else 'ill'} from now on")

    def log_message(self, *_):
        pass


class Hook(Server):
    lock = threading.Lock()
    epoch = 0
    changes = {}

    def do_POST(self):
        epoch = int(self.headers["bellwether-epoch"])
        change = int(self.headers["idempotency-key"])
        server = self.rfile.read(int(self.headers["content-length"])).decode()
        with Hook.lock:
            if epoch < Hook.epoch:
                verdict, status = "stale", 409
            elif change in Hook.changes:
                verdict, status = "known", 200 if Hook.changes[change] == server else 409
            else:
                Hook.changes[change] = server
                verdict, status = "done", 200
            Hook.epoch = max(Hook.epoch, epoch)
            with open(sys.argv[1], "a", encoding="ascii") as calls:
                calls.write(f"{epoch} {change} {server} {verdict}\n")
        if verdict == "done":
            time.sleep(1)
        try:
            self.answer(status, verdict)
        except OSError:
            pass  # Nobody waits for it any more.


threads = []
for handler in (Server, Server, Hook):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    threads.append(threading.Thread(target=server.serve_forever))
    threads[-1].start()
for thread in threads:
    thread.join()
