//! etcdctl reaches servers by TLS and by Unix sockets.
