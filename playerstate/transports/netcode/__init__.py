"""The netcode transport: netcode 1.02, the secure UDP protocol of game clients.

A client holds a sealed *connect token* from a login service, which shares a key with this server.
The server opens the token's private part, answers with a *challenge*, and lets the client in that
brings the challenge back: only then is the address known to be the client's own.  From there on
both sides send sealed, numbered packets, each of which is taken in once.

Everything but `service` and `protocol` is without sockets and without clocks, and calls nobody:
datagrams go in with their source and the time; events, payloads and datagrams come out.  Whatever
fails to keep a rule is *ignored*: it gets no answer, changes nothing, and raises one counter that
is kept by reason.

Rules are those of the netcode 1.02 standard (github.com/mas-bandwidth/netcode, STANDARD.md), with
the one-use tokens of its reference implementation since 1.4.5.  Where this server is stricter than
the standard, the place says so.
"""
