//! Asking a running daemon, over its unix socket.

use std::{io, path::Path};

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Why a daemon gave no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is at the socket.
    #[error("no daemon answers at {socket}: {source}; start one with `shunt run`, or name its --run-dir")]
    Connect {
        /// The socket.
        socket: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It hung up in the middle.
    #[error("the daemon broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// It refused, and said why.
    #[error("{0}")]
    Refused(String),
    /// The runtime for one request could not be made.
    #[error("cannot start a runtime: {0}")]
    Runtime(io::Error),
}

/// Asks `method path` with `body` at `socket`, and waits for the whole answer.
///
/// # Errors
/// When nobody answers, or the answer is not a success.
pub fn ask(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<String, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::Runtime)?.block_on(exchange(socket, method, path, body))
}

async fn exchange(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<String, Error> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|source| Error::Connect { socket: socket.display().to_string(), source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| Error::Refused(format!("{path} is not a path")))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    let text = String::from_utf8_lossy(&body).into_owned();
    if status == StatusCode::OK { Ok(text) } else { Err(Error::Refused(text.trim_end().to_owned())) }
}
