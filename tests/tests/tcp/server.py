"""Applications that speak no HTTP: python3 server.py MODE PORT [WORD]."""
import socket, ssl, struct, sys, threading

mode, port = sys.argv[1], int(sys.argv[2])
word = sys.argv[3] if len(sys.argv) > 3 else ""


def serve(conn):
    if mode == "echo":
        while data := conn.recv(65536):
            conn.sendall(data)
        conn.shutdown(socket.SHUT_WR)
    elif mode == "count":
        # Speaks only when the client has said that it is done.
        total = 0
        while data := conn.recv(65536):
            total += len(data)
        conn.sendall(b"%d bytes" % total)
    elif mode == "first":
        # Says all it has, is done, and then still listens.
        conn.sendall(b"x" * 100000)
        conn.shutdown(socket.SHUT_WR)
        while conn.recv(65536):
            pass
    elif mode == "greet":
        conn.sendall(b"220 ready\r\n")
        for line in conn.makefile("rb"):
            conn.sendall(b"250 " + line)
    elif mode == "name":
        conn.sendall(word.encode())
    elif mode == "reset":
        # Cuts off in the middle.
        conn.recv(1)
        conn.sendall(b"some")
        conn.recv(1)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif mode == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(word + ".pem", word + ".key")
        conn = context.wrap_socket(conn, server_side=True)
        conn.sendall(b"hello from " + word.rsplit("/", 1)[-1].encode() + b"\n")
    conn.close()


def guarded(conn):
    try:
        serve(conn)
    except OSError:
        conn.close()


listener = socket.create_server(("127.0.0.1", port), backlog=128)
while True:
    conn, _ = listener.accept()
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=guarded, args=(conn,), daemon=True).start()
