//! `curl` and other programs in a workload that asks a name server of the story's choice.

use std::fs;
use std::process::Command;

use super::Internet;
use crate::mesh::Workload;
use crate::setup::limited;
use crate::sweep::unique;

/// How `curl` ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Curled {
    /// Its exit status: 0, or what went wrong (6 no such name, 7 refused, 35 no TLS, 52 no answer, 56 reset).
    pub exit: i32,
    /// The HTTP status; 0 without an answer.
    pub status: u16,
    /// What it printed.
    pub body: String,
    /// Its complaint.
    pub complaint: String,
}

impl Internet {
    /// Runs `curl WORDS` in `workload`.
    #[track_caller]
    pub fn curl(&self, workload: &Workload, words: &str) -> Curled {
        let mut command = self.with_names(&self.resolv_conf(), "curl");
        command.args(["-q", "-sS", "--noproxy", "*", "--max-time", "10", "-w", "\n%{http_code}", "--cacert"]);
        command.arg(self.dir.join("authority.pem")).args(words.split_whitespace());
        let output = workload.output(&mut command).expect("start curl (package curl)");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        Curled {
            exit: output.status.code().unwrap_or(-1),
            status: status.parse().unwrap_or_default(),
            body: body.to_owned(),
            complaint: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `program`, which ends after a while and sees `text` as its /etc/resolv.conf. The rest of the file system is the host's.
    pub fn with_names(&self, text: &str, program: &str) -> Command {
        let file = self.dir.join(unique("resolv.conf"));
        fs::write(&file, text).expect("write resolv.conf");
        let mount = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", file.display());
        let mut command = limited("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &mount, "sh", program]);
        command
    }
}
