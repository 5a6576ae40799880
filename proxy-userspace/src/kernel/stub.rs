//! STAND-IN until `tables` arrives.
use super::{Error, Kernel};
use proxy_common::direct::{Account, AccountKey, Event};
use proxy_traffic::{Cluster, WorkloadName};
use std::{net::SocketAddr, os::fd::BorrowedFd, sync::Arc, time::Instant};
/// s
pub struct EndpointOf {
    /// c
    pub cluster: u32,
    /// a
    pub address: SocketAddr,
    /// w
    pub workload: Arc<WorkloadName>,
}
/// f
pub struct Fill {
    /// t
    pub table: &'static str,
    /// u
    pub used: u32,
    /// s
    pub size: u32,
}
impl Kernel {
    /// s
    pub fn sync_health(&mut self) -> Result<usize, Error> {
        Ok(0)
    }
    /// s
    pub fn tend(&mut self, _now: Instant) -> Result<(), Error> {
        Ok(())
    }
    /// s
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
    /// s
    pub fn events(&mut self, _each: impl FnMut(&Event)) {}
    /// s
    pub fn accounts(&self) -> Result<Vec<(AccountKey, Account)>, Error> {
        Ok(vec![])
    }
    /// s
    pub fn cluster(&self, _number: u32) -> Option<&Arc<Cluster>> {
        None
    }
    /// s
    pub fn endpoint(&self, _number: u32) -> Option<&Arc<EndpointOf>> {
        None
    }
    /// s
    pub fn tracked_map_fd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
    /// s
    pub fn fill(&self) -> Vec<Fill> {
        vec![]
    }
}
