//! Looks names up on our own behalf, with hickory-resolver: random ports and IDs, letters in random case, no search domains, no
//! hosts file. Every answer is taken for hostile: see `answers.rs`.

mod answers;
mod cache;
mod keeper;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
};
use proxy_traffic::Lookup;
use thiserror::Error;
use tokio::sync::Semaphore;

pub use keeper::Keeper;

use crate::settings::LookupFamily;

use self::{answers::Found, cache::Cache};

/// Where the machine's name servers are written.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long one round of asking may take, and how many there are.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// How many names that clients say are looked up at once; the others wait.
const AT_ONCE: usize = 64;

/// Why a name has no addresses.
#[derive(Debug, Error)]
pub enum Error {
    /// It could not be one.
    #[error("{0:?} is no name that can be looked up")]
    Name(String),
    /// Nobody answered, or not in a way that could be understood.
    #[error("no answer for {name}: {source}")]
    Unanswered {
        /// The name.
        name: String,
        /// What went wrong.
        source: NetError,
    },
    /// There is an answer, and it holds no address that may be used.
    #[error("{0} has no address that may be used")]
    Nothing(String),
}

/// Looks names up. Clones share what they know.
#[derive(Clone)]
pub struct Resolver {
    client: TokioResolver,
    family: LookupFamily,
    cache: Arc<Cache>,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("family", &self.family).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks `servers`, or those of `/etc/resolv.conf`, for addresses of `family`.
    ///
    /// # Errors
    /// When `/etc/resolv.conf` is there and cannot be read.
    pub fn new(servers: Option<Vec<SocketAddr>>, family: LookupFamily) -> io::Result<Self> {
        let servers = servers.map_or_else(system_servers, Ok)?;
        let servers = servers.into_iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(config, provider).with_options(options());
        let client = builder.build().map_err(io::Error::other)?;
        let (cache, places) = (Arc::default(), Arc::new(Semaphore::new(AT_ONCE)));
        Ok(Self { client, family, cache, places })
    }

    /// The addresses of a name that somebody said, from memory for as long as they hold; none when nobody knows any.
    pub async fn resolve(&self, name: &str, lookup: &Lookup) -> Vec<IpAddr> {
        if let Some(addresses) = self.cache.get(name, lookup) {
            return addresses;
        }
        let Ok(_place) = self.places.acquire().await else { return Vec::new() };
        // Who waited may find that another has asked meanwhile.
        if let Some(addresses) = self.cache.get(name, lookup) {
            return addresses;
        }
        let found = self.ask(name, lookup).await.unwrap_or_default();
        self.cache.put(name, lookup, &found);
        found.addresses
    }

    /// Asks, whatever is known already. Without an error there is an address.
    async fn ask(&self, name: &str, lookup: &Lookup) -> Result<Found, Error> {
        let mut full = Name::from_ascii(name).map_err(|_| Error::Name(name.to_owned()))?;
        full.set_fqdn(true);
        let v4 = || self.ask_for(&full, RecordType::A, lookup);
        let v6 = || self.ask_for(&full, RecordType::AAAA, lookup);
        let found = match self.family {
            LookupFamily::V4Only => v4().await,
            LookupFamily::V6Only => v6().await,
            LookupFamily::V4Preferred => match v4().await {
                Ok(found) if found.addresses.is_empty() => v6().await,
                outcome => outcome,
            },
            LookupFamily::V6Preferred => match v6().await {
                Ok(found) if found.addresses.is_empty() => v4().await,
                outcome => outcome,
            },
            LookupFamily::All => match tokio::join!(v4(), v6()) {
                (Ok(v4), Ok(v6)) => Ok(v4.and(v6)),
                (Ok(one), Err(error)) | (Err(error), Ok(one)) => {
                    if one.addresses.is_empty() {
                        Err(error)
                    } else {
                        Ok(one)
                    }
                }
                (Err(error), Err(_)) => Err(error),
            },
        };
        match found {
            Ok(found) if found.addresses.is_empty() => Err(Error::Nothing(name.to_owned())),
            outcome => outcome.map_err(|source| Error::Unanswered { name: name.to_owned(), source }),
        }
    }

    /// "There is none" is an answer without addresses, anything else that is none a failure.
    async fn ask_for(&self, name: &Name, kind: RecordType, lookup: &Lookup) -> Result<Found, NetError> {
        match self.client.lookup(name.clone(), kind).await {
            Ok(answer) => Ok(answers::found(name, kind, answer.answers(), lookup)),
            Err(error) if error.is_no_records_found() => Ok(Found::default()),
            Err(error) => Err(error),
        }
    }
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.ndots = 0;
    options.timeout = PATIENCE;
    options.attempts = ROUNDS;
    // What holds for how long is for us to say.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.case_randomization = true;
    options
}

/// As the C library: a machine that names no server has one of its own.
fn system_servers() -> io::Result<Vec<SocketAddr>> {
    match fs::read_to_string(RESOLV_CONF) {
        Ok(text) => Ok(name_servers(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(name_servers("")),
        Err(error) => Err(io::Error::new(error.kind(), format!("{RESOLV_CONF}: {error}"))),
    }
}

fn name_servers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().map(str::split_whitespace);
    let named = words.filter_map(|mut line| (line.next() == Some("nameserver")).then(|| line.next())?);
    let addresses = named.filter_map(|address| address.parse::<IpAddr>().ok());
    let servers: Vec<_> = addresses.map(|address| SocketAddr::new(address, 53)).collect();
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, 53).into()] } else { servers }
}
