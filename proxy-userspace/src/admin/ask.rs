//! Paths to questions: the whole of the admin interface in one table.

use std::{collections::BTreeMap, path::PathBuf};

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

/// Which way a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The TCP address of metrics and health: open to whoever reaches it.
    Tcp,
    /// The unix socket: root only.
    Unix,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Prometheus text.
    Metrics,
    /// Does the control loop turn?
    Live,
    /// Are the programs attached and the first snapshot published?
    Ready,
    /// Listeners with their verdict, as a table.
    Routes,
    /// The whole snapshot, its listing.
    ConfigDump,
    /// What an operator wants to know first.
    Status,
    /// What `shunt exec` needs in order to join the local workload.
    Exec,
    /// Look after another network namespace.
    Enroll(Enrolment),
    /// Leave a workload alone again, by name.
    Unenroll(String),
}

/// Another network namespace to look after: the body of `POST /workloads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Its name, unique on this node.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Labels, as `sourceLabels` match them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// A file that is its network namespace: `/run/netns/NAME`, `/proc/PID/ns/net`.
    pub netns: PathBuf,
    /// Only the processes of this cgroup v2 folder, when given.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
}

/// Answer to [`Ask::Exec`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecContext {
    /// The local workload's cgroup folder.
    pub cgroup: PathBuf,
    /// The hosts file with the mesh's names.
    pub hosts: PathBuf,
    /// The network namespace that the daemon captures in.
    pub netns: PathBuf,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// `text/plain…` or `application/json`.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

impl Answer {
    /// Plain text with a status.
    #[must_use]
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// Plain text, all well.
    #[must_use]
    pub fn ok(body: impl Into<String>) -> Self {
        Self::text(StatusCode::OK, body)
    }

    /// `value` as JSON, all well.
    #[must_use]
    pub fn json(value: &impl Serialize) -> Self {
        let body = serde_json::to_string_pretty(value);
        body.map_or_else(
            |error| Self::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write JSON: {error}\n")),
            |body| Self { status: StatusCode::OK, content_type: "application/json", body: body + "\n" },
        )
    }
}

impl Ask {
    /// What `method path` with `body` asks at `door`.
    ///
    /// # Errors
    /// The answer to give instead: not found, method not allowed, or what is wrong with the body.
    pub fn parse(door: Door, method: &Method, path: &str, body: &[u8]) -> Result<Self, Answer> {
        let ask = match (door, path) {
            (_, "/metrics") => Self::Metrics,
            (_, "/healthz/live") => Self::Live,
            (_, "/healthz/ready") => Self::Ready,
            (Door::Unix, "/routes") => Self::Routes,
            (Door::Unix, "/config_dump") => Self::ConfigDump,
            (Door::Unix, "/status") => Self::Status,
            (Door::Unix, "/exec") => Self::Exec,
            (Door::Unix, "/workloads") => return only(method, &Method::POST, || enrolment(body)),
            (Door::Unix, path) if path.starts_with("/workloads/") => {
                let name = path["/workloads/".len()..].to_owned();
                return only(method, &Method::DELETE, || Ok(Self::Unenroll(name)));
            }
            _ => return Err(Answer::text(StatusCode::NOT_FOUND, "not found\n")),
        };
        only(method, &Method::GET, || Ok(ask))
    }
}

fn only(method: &Method, allowed: &Method, ask: impl FnOnce() -> Result<Ask, Answer>) -> Result<Ask, Answer> {
    if method == allowed {
        return ask();
    }
    Err(Answer::text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}\n")))
}

fn enrolment(body: &[u8]) -> Result<Ask, Answer> {
    serde_json::from_slice(body)
        .map(Ask::Enroll)
        .map_err(|error| Answer::text(StatusCode::BAD_REQUEST, format!("not an enrolment: {error}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tcp_door_serves_three_paths_and_nothing_else() {
        for (path, open) in [
            ("/metrics", true),
            ("/healthz/live", true),
            ("/healthz/ready", true),
            ("/status", false),
            ("/routes", false),
            ("/config_dump", false),
            ("/exec", false),
            ("/workloads/a", false),
            ("/", false),
        ] {
            let answer = Ask::parse(Door::Tcp, &Method::GET, path, b"");
            assert_eq!(answer.is_ok(), open, "{path}");
        }
    }

    #[test]
    fn a_method_that_does_not_fit_is_told_which_does() {
        let wrong = Ask::parse(Door::Unix, &Method::POST, "/status", b"").unwrap_err();
        assert_eq!((wrong.status, wrong.body.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "use GET\n"));
    }

    #[test]
    fn an_enrolment_is_read_from_json_and_a_stray_field_is_named() {
        let body = br#"{"name":"a","namespace":"default","netns":"/run/netns/a"}"#;
        let ask = Ask::parse(Door::Unix, &Method::POST, "/workloads", body).unwrap();
        assert!(matches!(ask, Ask::Enroll(enrolment) if enrolment.name == "a" && enrolment.cgroup.is_none()));
        let stray = br#"{"name":"a","namespace":"default","netns":"/n","label":{}}"#;
        let wrong = Ask::parse(Door::Unix, &Method::POST, "/workloads", stray).unwrap_err();
        assert!(wrong.body.contains("`label`"), "{}", wrong.body);
    }

    #[test]
    fn unenrolling_names_the_workload_in_the_path() {
        let ask = Ask::parse(Door::Unix, &Method::DELETE, "/workloads/web-1", b"").unwrap();
        assert_eq!(ask, Ask::Unenroll("web-1".to_owned()));
    }
}
