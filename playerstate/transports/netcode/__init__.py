"""The netcode transport: netcode 1.02, the secure UDP protocol of game clients.

A client holds a sealed *connect token* from a login service, which shares a key with this server.
The server opens the token's private part and answers with a *challenge*.  A client that returns the
challenge is connected: only then is the address known to be the client's own.  From there on both
sides send sealed, numbered packets, each of which is accepted once.

All modules but `service` and `protocol` use no socket and no clock, and make no callbacks:
datagrams go in with their source and the time; events, payloads and datagrams come out.  A datagram
that breaks a rule is *ignored*: it gets no answer, changes no client's state, and increments the
counter of its reason.

The rules are those of the netcode 1.02 standard (github.com/mas-bandwidth/netcode, STANDARD.md),
with the one-use tokens of its reference implementation since 1.4.5.  Where this server is stricter
than the standard, a comment there says so.
"""
