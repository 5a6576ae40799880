//! The daemon's two doors: what an operator and `shunt` commands may ask, and how it is carried.
//!
//! TCP serves health and metrics only. Everything else is asked over a unix socket that only root can open.
//! Questions travel to the app as [`Ask`] and come back as one [`Answer`]: this room knows HTTP, and nothing of
//! what the answers mean.

mod ask;
pub mod client;
mod server;
mod status;
mod view;

pub use ask::{Answer, Ask, Door, Enrolment, ExecContext};
pub use server::{Asked, serve_tcp, serve_unix};
pub use status::{EjectedRow, ForeignRow, Pins, Status, TableRow};
pub use view::{RouteRow, Routes, WorkloadRow};
