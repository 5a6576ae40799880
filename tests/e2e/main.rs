//! The end-to-end stories: real namespaces, real eBPF, the real daemon. Run as root.

mod scene;

mod capture;
mod direct_telemetry;
mod failures;
mod forwarding;
mod gateway;
mod killed;
mod lifecycle;
mod live_edits;
mod load;
mod matching;
mod names;
mod ports;
mod refusals;
mod shifting;
mod telemetry;
mod workloads;

mod harness;
