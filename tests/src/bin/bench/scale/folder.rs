//! The folder of the scale run: many services, each with one address and some endpoints, all of which are served.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Services in a file; the first of them have a file each.
pub(super) const TOGETHER: usize = 100;
/// Every address from here on, 2^22 of them, is the server's.
pub(super) const ENDPOINTS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
/// The services' own addresses, 2^22 too.
const SERVICES: Ipv4Addr = Ipv4Addr::new(10, 192, 0, 0);
/// The port of all services and endpoints.
pub(super) const PORT: u16 = 9001;

/// What is in the folder.
pub(super) struct Folder {
    config: PathBuf,
    /// On the same file system, so that a file moves into place in one step.
    staging: PathBuf,
    /// The endpoints of each service.
    services: Vec<Vec<Ipv4Addr>>,
    /// The next address that no service has had yet.
    fresh: u32,
}

impl Folder {
    /// Writes all files. The first service of the first file of each kind has a single endpoint, so that one connection
    /// tells whether it was changed.
    pub(super) fn create(dir: &Path, services: usize, endpoints: usize) -> Result<Self> {
        let (config, staging) = (dir.join("config"), dir.join("staging"));
        fs::create_dir_all(&config)?;
        fs::create_dir_all(&staging)?;
        let each = endpoints / services;
        let mut folder = Self { config, staging, services: Vec::new(), fresh: 0 };
        for service in 0..services {
            let count = match service {
                0 | TOGETHER => 1,
                // What those lack.
                _ if service == 1 || service == TOGETHER + 1 => 2 * each - 1,
                _ => each,
            };
            let addresses = (0..count).map(|_| folder.next()).collect();
            folder.services.push(addresses);
        }
        (0..services)
            .filter(|&service| first_of_file(service))
            .try_for_each(|service| folder.write(service))?;
        Ok(folder)
    }

    /// The address of a service.
    pub(super) fn vip(service: usize) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(SERVICES) + service as u32)
    }

    /// How many services there are.
    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    /// How many endpoints there are.
    pub(super) fn endpoints(&self) -> usize {
        self.services.iter().map(Vec::len).sum()
    }

    /// Replaces the first endpoint of `service` by an address that was nobody's, on disk; returns that address.
    pub(super) fn change(&mut self, service: usize) -> Result<Ipv4Addr> {
        let address = self.next();
        self.services[service][0] = address;
        self.write(service)?;
        Ok(address)
    }

    fn next(&mut self) -> Ipv4Addr {
        self.fresh += 1;
        // .0 and .255 are addresses like others here: no subnet of the mesh contains them.
        Ipv4Addr::from(u32::from(ENDPOINTS) + self.fresh)
    }

    /// Writes the file that `service` is in and moves it into place.
    fn write(&self, service: usize) -> Result<()> {
        let (first, count) = match service < TOGETHER {
            true => (service, 1),
            false => (service / TOGETHER * TOGETHER, TOGETHER),
        };
        let last = (first + count).min(self.services.len());
        let text: String = (first..last).map(|service| entry(service, &self.services[service])).collect();
        let name = format!("services-{first:05}.yaml");
        let staged = self.staging.join(&name);
        fs::write(&staged, text).with_context(|| format!("write {}", staged.display()))?;
        fs::rename(&staged, self.config.join(&name)).with_context(|| format!("move {name} into place"))
    }
}

fn first_of_file(service: usize) -> bool {
    service < TOGETHER || service.is_multiple_of(TOGETHER)
}

fn entry(service: usize, endpoints: &[Ipv4Addr]) -> String {
    let list: String = endpoints.iter().map(|address| format!("  - address: {address}\n")).collect();
    let vip = Folder::vip(service);
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: s{service}}}
spec:
  hosts: [s{service}.scale]
  addresses: [{vip}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: {PORT}, name: tcp, protocol: TCP}}]
  endpoints:
{list}"
    )
}
