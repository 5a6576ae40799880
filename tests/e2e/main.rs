//! The end-to-end stories: real namespaces, real eBPF, the real daemon. Run as root.

mod scene;

mod shifting;
mod names;
mod live_edits;
mod matching;
mod ports;
mod failures;
mod capture;
mod workloads;
mod forwarding;
mod load;
mod gateway;
mod telemetry;
mod lifecycle;
mod killed;
mod refusals;

mod harness;
