//! Names that workloads can dial: the hosts file of `shunt exec`, and the memory that keeps a host's address the
//! same across restarts.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    io::Write as _,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use proxy_traffic::{Host, Map};
use serde::{Deserialize, Serialize};

/// One host in the memory file.
#[derive(Serialize, Deserialize)]
struct Remembered {
    namespace: String,
    addresses: Vec<IpAddr>,
}

/// A hosts file with every host of the mesh in front of what `own` (the machine's) says. Services answer to
/// their full name, `name.namespace.svc`, `name.namespace`, and inside their namespace to `name`.
pub(super) fn hosts_file(own: &str, hosts: &Map<String, Host>, namespace: &str, domain: &str) -> String {
    let mut text = "# Names of the mesh, kept by shunt; the machine's own follow.\n".to_owned();
    for (name, host) in hosts {
        let aliases = aliases(name, namespace, domain).join(" ");
        for address in &host.addresses {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{address} {aliases}");
        }
    }
    text + own
}

/// Every way to write the host `name` from inside `namespace`.
fn aliases(name: &str, namespace: &str, domain: &str) -> Vec<String> {
    let mut all = vec![name.to_owned()];
    let service = name.strip_suffix(domain).and_then(|rest| rest.strip_suffix(".svc."));
    if let Some((short, own)) = service.and_then(|rest| rest.split_once('.')) {
        all.extend([format!("{short}.{own}.svc"), format!("{short}.{own}")]);
        if own == namespace {
            all.push(short.to_owned());
        }
    }
    all
}

/// Replaces the text of the file at `path` in place: processes that `shunt exec` started have this very file
/// mounted, so a new file under the same name would not reach them.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn rewrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
    // Whoever commands run as must be able to read it, whatever our umask is.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// The memory of a state folder.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    saved: String,
}

impl Memory {
    /// The memory in `state_dir`, and what it holds. An unreadable memory is forgotten, with a warning: hosts
    /// may then get other addresses than before.
    pub(super) fn open(state_dir: &Path) -> (Self, BTreeMap<String, Host>) {
        let path = state_dir.join("hosts.json");
        let saved = fs::read_to_string(&path).unwrap_or_default();
        let hosts = if saved.is_empty() { Ok(BTreeMap::new()) } else { parse(&saved) };
        let hosts = hosts.unwrap_or_else(|error| {
            tracing::warn!("{}: {error}; hosts may get other addresses than before", path.display());
            BTreeMap::new()
        });
        (Self { path, saved }, hosts)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers `hosts`, if they differ from what is already there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn save(&mut self, hosts: &Map<String, Host>) -> io::Result<()> {
        let remembered =
            |host: &Host| Remembered { namespace: host.namespace.clone(), addresses: host.addresses.clone() };
        let all: BTreeMap<_, _> = hosts.iter().map(|(name, host)| (name, remembered(host))).collect();
        let text = serde_json::to_string_pretty(&all)?;
        if text == self.saved {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let draft = self.path.with_extension("json.new");
        fs::write(&draft, &text)?;
        fs::rename(&draft, &self.path)?;
        self.saved = text;
        Ok(())
    }
}

fn parse(text: &str) -> serde_json::Result<BTreeMap<String, Host>> {
    let all: BTreeMap<String, Remembered> = serde_json::from_str(text)?;
    let host = |one: Remembered| Host { namespace: one.namespace, addresses: one.addresses, exported: None };
    Ok(all.into_iter().map(|(name, one)| (name, host(one))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(namespace: &str, addresses: &[&str]) -> Host {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Host { namespace: namespace.to_owned(), addresses, exported: None }
    }

    #[test]
    fn a_service_answers_to_its_short_names_and_an_external_host_to_its_own() {
        let hosts = Map::from([
            ("db.other.svc.cluster.local".to_owned(), host("other", &["10.0.0.2", "fd00::2"])),
            ("example.com".to_owned(), host("default", &["240.240.0.9"])),
            ("web.default.svc.cluster.local".to_owned(), host("default", &["10.0.0.1"])),
        ]);
        let text = hosts_file("127.0.0.1 localhost\n", &hosts, "default", "cluster.local");
        let want = "# Names of the mesh, kept by shunt; the machine's own follow.\n\
            10.0.0.2 db.other.svc.cluster.local db.other.svc db.other\n\
            fd00::2 db.other.svc.cluster.local db.other.svc db.other\n\
            240.240.0.9 example.com\n\
            10.0.0.1 web.default.svc.cluster.local web.default.svc web.default web\n\
            127.0.0.1 localhost\n";
        assert_eq!(text, want);
    }

    #[test]
    fn a_rewrite_keeps_the_file_and_leaves_no_tail() {
        use std::os::unix::fs::MetadataExt as _;
        let path = std::env::temp_dir().join(format!("shunt-names-{}", std::process::id()));
        rewrite(&path, "a long text").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        rewrite(&path, "short").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_was_remembered_is_there_after_a_restart_and_rubbish_is_survived() {
        let folder = std::env::temp_dir().join(format!("shunt-memory-{}", std::process::id()));
        let hosts = Map::from([("a.b".to_owned(), host("default", &["240.240.1.1"]))]);
        let (mut memory, nothing) = Memory::open(&folder);
        assert!(nothing.is_empty());
        memory.save(&hosts).unwrap();
        assert_eq!(Map::from(Memory::open(&folder).1), hosts);
        fs::write(folder.join("hosts.json"), "{").unwrap();
        assert!(Memory::open(&folder).1.is_empty());
        fs::remove_dir_all(folder).unwrap();
    }
}
