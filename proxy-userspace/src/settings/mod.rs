//! What an operator sets: the arguments of `shunt run`, parsed and checked.

mod egress;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use proxy_common::FailurePolicy;

pub use self::egress::{Blocked, EgressSettings, LookupFamily, Switch};
use crate::kernel::LogLevel;

/// Where the daemon's socket, lock and hosts file live unless told otherwise.
pub const RUN_DIR: &str = "/run/shunt";

/// Sizes that the kernel's tables may have; the largest takes some GiB.
const TABLE_SIZES: std::ops::RangeInclusive<i64> = 16..=16_777_216;
/// A lease is renewed four times in its length, by a daemon that may be busy for a moment.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// Who carries the connections of a listener whose rules need only what the kernel can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Datapath {
    /// The kernel.
    #[default]
    Auto,
    /// The daemon, as it does for all others.
    Steer,
}

/// What a connection beyond `maxConnections` meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Overflow {
    /// `ECONNREFUSED`.
    #[default]
    Refuse,
    /// The daemon accepts and closes, as Istio's sidecar does.
    Close,
}

/// The arguments of `shunt run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Folder of YAML: Istio and Kubernetes resources, watched for changes
    #[arg(long, value_name = "DIR")]
    pub config: PathBuf,
    /// Folder for the admin socket, the lock and the workloads' hosts file
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// Folder that remembers which address each host was given, so that it stays the same across restarts
    #[arg(long, value_name = "DIR", default_value = "/var/lib/shunt")]
    pub state_dir: PathBuf,
    /// Name of this daemon's cgroup and of its pins; two daemons on one machine need two names
    #[arg(long, value_name = "NAME", default_value = "shunt", value_parser = file_name)]
    pub instance: String,
    /// Name of the local workload: the processes that `shunt exec` starts
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub name: String,
    /// Kubernetes namespace of the local workload
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Label of the local workload, as sourceLabels match it; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Address that Gateway servers without `bind` listen on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub gateway_address: IpAddr,
    /// Label that a Gateway's selector finds this process by; may be repeated
    #[arg(long = "gateway-label", value_name = "KEY=VALUE", value_parser = key_value, default_value = "istio=ingressgateway")]
    pub gateway_labels: Vec<(String, String)>,
    /// Address of /metrics, /healthz/live and /healthz/ready
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15000")]
    pub metrics_address: SocketAddr,
    /// What a captured connect() meets while no daemon listens: `open` lets it go its own way, `closed` refuses
    #[arg(long, value_name = "open|closed", default_value = "open", value_parser = failure_policy)]
    pub failure_policy: FailurePolicy,
    /// Access log, one line a connection: `text`, `json` or `off`
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json", "off"])]
    pub access_log: String,
    /// File that the access log is appended to; standard output when absent
    #[arg(long, value_name = "FILE")]
    pub access_log_file: Option<PathBuf>,
    /// How long open connections may finish after SIGTERM: `30s`, `500ms`, `2m`
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// Worker threads; one for every two processors when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub workers: Option<u16>,
    /// Firewall mark of steered connections; must be nobody else's
    #[arg(long, value_name = "MARK", default_value = "0x53485554", value_parser = number)]
    pub mark: u32,
    /// Routing table, and priority of the rule that leads to it, for steered connections
    #[arg(long, value_name = "N", default_value = "21332", value_parser = route_table)]
    pub route_table: u32,
    /// Whether the kernel may route by itself what it can (`auto`), or the daemon carries every claimed connection (`steer`)
    #[arg(long, value_name = "auto|steer", default_value = "auto", value_enum, hide_possible_values = true)]
    pub datapath: Datapath,
    /// What a connection beyond a limit meets: `refuse` is ECONNREFUSED, `close` (Istio's way) accepts and closes, which
    /// takes the daemon
    #[arg(
        long,
        value_name = "refuse|close",
        default_value = "refuse",
        value_enum,
        hide_possible_values = true
    )]
    pub overflow: Overflow,
    /// Leave the programs and their tables in place when the daemon is killed: the kernel goes on routing for the length of
    /// the lease, and the next start takes over; `--failure-policy closed` implies it
    #[arg(long)]
    pub pin: bool,
    /// How long the kernel goes on routing without a daemon: `60s`; `0s` is for ever
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = lease)]
    pub lease: Duration,
    /// Where this node is, as in the label topology.kubernetes.io/region: endpoints nearby come first
    #[arg(long, value_name = "REGION[/ZONE[/SUBZONE]]", default_value = "", hide_default_value = true, value_parser = locality)]
    pub locality: String,
    /// Share of the connections routed by the kernel that get a line in the access log; metrics count all
    #[arg(long, value_name = "PERCENT", default_value = "100", value_parser = clap::value_parser!(u8).range(..=100))]
    pub direct_log: u8,
    /// Listeners, and clusters, that the kernel's tables have room for
    #[arg(long, value_name = "N", default_value = "65536", value_parser = clap::value_parser!(u32).range(TABLE_SIZES))]
    pub max_listeners: u32,
    /// Endpoints that the kernel's tables have room for
    #[arg(long, value_name = "N", default_value = "131072", value_parser = clap::value_parser!(u32).range(TABLE_SIZES))]
    pub max_endpoints: u32,
    /// What the kernel programs log of each decision: `off`, `error`, `warn`, `info`, `debug`
    #[arg(long, value_name = "LEVEL", default_value = "off", value_parser = bpf_log)]
    pub bpf_log: LogLevel,
    /// Egress and names.
    #[command(flatten)]
    pub egress: EgressSettings,
}

impl Settings {
    /// Where the daemon answers `shunt` commands.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir.join("admin.sock")
    }

    /// Whether programs and tables outlive a killed daemon.
    #[must_use]
    pub fn pins(&self) -> bool {
        self.pin || self.failure_policy == FailurePolicy::Closed
    }

    /// The gateway labels as a map.
    #[must_use]
    pub fn gateway_labels(&self) -> BTreeMap<String, String> {
        self.gateway_labels.iter().cloned().collect()
    }
}

/// `KEY=VALUE`.
///
/// # Errors
/// A sentence, when there is no `=` or nothing before it.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, as in app=web".to_owned()),
    }
}

fn file_name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let good = !text.is_empty() && text.bytes().all(fits);
    good.then(|| text.to_owned()).ok_or_else(|| "use letters, digits, - and _ only".to_owned())
}

fn failure_policy(text: &str) -> Result<FailurePolicy, String> {
    match text {
        "open" => Ok(FailurePolicy::Open),
        "closed" => Ok(FailurePolicy::Closed),
        _ => Err("write open or closed".to_owned()),
    }
}

fn bpf_log(text: &str) -> Result<LogLevel, String> {
    match text {
        "off" => Ok(LogLevel::Off),
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        _ => Err("write off, error, warn, info or debug".to_owned()),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.ok().filter(|&number| number != 0).ok_or_else(|| "write a number from 1, or 0x… in hex".to_owned())
}

/// Also the rule's priority, so it must come before the main table's 32766; 253 to 255 are the kernel's own.
fn route_table(text: &str) -> Result<u32, String> {
    number(text).ok().filter(|table| (1..32_766).contains(table) && !(253..=255).contains(table)).ok_or_else(
        || "write a number from 1 to 32765 that is not 253, 254 or 255 (the system's tables)".to_owned(),
    )
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err("write a number with a unit: 500ms, 30s, 2m".to_owned()),
    };
    let count: u64 =
        digits.parse().map_err(|_| "write a whole number with a unit: 500ms, 30s, 2m".to_owned())?;
    count.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(|| "that is too long".to_owned())
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    let fits = lease.is_zero() || lease >= SHORTEST_LEASE;
    fits.then_some(lease).ok_or_else(|| "write at least 1s, or 0s for one that never ends".to_owned())
}

/// Up to three plain names, as Istio writes a locality.
fn locality(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let plain = |part: &str| !part.is_empty() && part.bytes().all(fits);
    let good = text.is_empty() || (text.split('/').count() <= 3 && text.split('/').all(plain));
    good.then(|| text.to_owned()).ok_or_else(|| "write REGION, REGION/ZONE or REGION/ZONE/SUBZONE".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// `shunt run --config /etc/shunt` with more arguments.
    fn run(more: &[&str]) -> Result<Settings, String> {
        #[derive(clap::Parser)]
        struct Run {
            #[command(flatten)]
            settings: Settings,
        }
        let words = ["run", "--config", "/etc/shunt"].iter().chain(more);
        Run::try_parse_from(words).map(|run| run.settings).map_err(|error| error.to_string())
    }

    #[test]
    fn the_kernel_routes_unless_told_otherwise_and_says_so_in_the_log() {
        let settings = run(&[]).unwrap();
        assert_eq!((settings.datapath, settings.overflow), (Datapath::Auto, Overflow::Refuse));
        assert_eq!((settings.lease, settings.direct_log), (Duration::from_secs(60), 100));
        assert_eq!((settings.max_listeners, settings.max_endpoints), (65_536, 131_072));
        assert!(!settings.pins() && settings.locality.is_empty());
        let settings = run(&["--datapath", "steer", "--overflow", "close", "--direct-log", "0"]).unwrap();
        assert_eq!((settings.datapath, settings.overflow), (Datapath::Steer, Overflow::Close));
        assert_eq!(settings.direct_log, 0);
        for wrong in [
            ["--datapath", "direct"],
            ["--overflow", "drop"],
            ["--direct-log", "101"],
            ["--max-listeners", "1"],
            ["--max-endpoints", "99999999"],
        ] {
            assert!(run(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn refusing_without_a_daemon_takes_pins() {
        assert!(run(&["--pin"]).unwrap().pins());
        assert!(run(&["--failure-policy", "closed"]).unwrap().pins());
    }

    #[test]
    fn a_lease_is_a_second_or_more_or_for_ever() {
        for (text, want) in
            [("60s", Some(60_000)), ("1s", Some(1_000)), ("0s", Some(0)), ("999ms", None), ("1", None)]
        {
            assert_eq!(lease(text).ok(), want.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_locality_has_up_to_three_names() {
        for (text, want) in [
            ("", true),
            ("eu-1", true),
            ("eu-1/a", true),
            ("eu-1/a/rack_7", true),
            ("a/b/c/d", false),
            ("/a", false),
            ("a//c", false),
            ("a b", false),
        ] {
            assert_eq!(locality(text).is_ok(), want, "{text}");
        }
    }

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, want) in [
            ("30s", Some(30_000)),
            ("500ms", Some(500)),
            ("2m", Some(120_000)),
            ("0s", Some(0)),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1h", None),
        ] {
            assert_eq!(duration(text).ok(), want.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn marks_are_decimal_or_hex_and_never_zero() {
        for (text, want) in
            [("0x10", Some(16)), ("21332", Some(21332)), ("0", None), ("0x", None), ("-1", None)]
        {
            assert_eq!(number(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn a_route_table_is_nobody_elses_and_its_rule_comes_before_the_main_table() {
        for (text, want) in [
            ("21332", true),
            ("0x100", true),
            ("32765", true),
            ("32766", false),
            ("0", false),
            ("253", false),
            ("254", false),
            ("255", false),
        ] {
            assert_eq!(route_table(text).is_ok(), want, "{text}");
        }
    }

    #[test]
    fn an_instance_is_a_plain_file_name() {
        for (text, want) in [("shunt", true), ("a-b_9", true), ("", false), ("../x", false), ("a/b", false)] {
            assert_eq!(file_name(text).is_ok(), want, "{text}");
        }
    }

    #[test]
    fn labels_may_have_an_empty_value_but_not_an_empty_key() {
        assert_eq!(key_value("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(key_value("a=").is_ok() && key_value("=b").is_err() && key_value("ab").is_err());
    }
}
