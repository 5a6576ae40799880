//! The end-to-end stories: real namespaces, real eBPF, the real daemon. Run as root.

#[macro_use]
mod datapath;
mod fleet;
mod scene;

mod balancing;
mod books;
mod capture;
mod direct_telemetry;
mod egress;
mod failures;
mod forwarding;
mod gateway;
mod killed;
mod lease;
mod lifecycle;
mod limits;
mod live_edits;
mod load;
mod matching;
mod names;
mod outliers;
mod ports;
mod refusals;
mod shifting;
mod survival;
mod telemetry;
mod timeouts;
mod verdicts;
mod workloads;

mod harness;
