//! The end-to-end stories: real namespaces, real eBPF, the real daemon.

mod harness;
