//! The gRPC services of etcd v3.
