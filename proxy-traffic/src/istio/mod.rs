//! Istio's and Kubernetes' resources, and the dictionary that turns them into a snapshot.
//!
//! [`Store`] takes the text of files and keeps the last good version of every resource; [`compile`] turns what
//! it holds into a [`Snapshot`](crate::Snapshot). Both report what they could not use as [`Problem`]s and never
//! fail as a whole. Where the text comes from and who reads the problems is left to others.

mod compile;
mod document;
mod fields;
pub(crate) mod names;
mod order;
mod problem;
mod resource;
mod scalar;
mod store;
#[cfg(test)]
mod tests;
mod validate;

pub use compile::{Compiler, Settings, compile};
pub use problem::{Problem, Severity};
pub use resource::Resources;
pub use store::Store;
