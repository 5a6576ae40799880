//! HTTP/1.1 on a TCP address and on a unix socket; each request becomes one [`Ask`] to the app.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, StatusCode, body::Bytes, body::Incoming, header, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{Answer, Ask, Door};

/// A question and where its answer goes.
pub type Asked = (Ask, oneshot::Sender<Answer>);

/// Larger bodies are nobody's enrolment.
const LARGEST_BODY: usize = 64 << 10;
/// How long a client may take to send its request's head, and then its body.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a failed accept: no descriptor is free, and asking again at once would not free one.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Clients of one door at a time: anybody on the machine may dial the TCP one, and every client takes a descriptor that
/// a connection would need.
const SEATS: usize = 64;

/// Serves metrics and health until the runtime ends.
pub async fn serve_tcp(listener: TcpListener, app: mpsc::Sender<Asked>) {
    let seats = Arc::new(Semaphore::new(SEATS));
    // It is never closed, so there is always a seat to wait for.
    while let Ok(seat) = seats.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, Door::Tcp, app.clone(), seat))),
            Err(_) => tokio::time::sleep(BACK_OFF).await,
        }
    }
}

/// Serves the `shunt` commands until the runtime ends.
pub async fn serve_unix(listener: UnixListener, app: mpsc::Sender<Asked>) {
    let seats = Arc::new(Semaphore::new(SEATS));
    // It is never closed, so there is always a seat to wait for.
    while let Ok(seat) = seats.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, Door::Unix, app.clone(), seat))),
            Err(_) => tokio::time::sleep(BACK_OFF).await,
        }
    }
}

/// One client, as many requests as it likes.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    door: Door,
    app: mpsc::Sender<Asked>,
    _seat: OwnedSemaphorePermit,
) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(respond(door, request, &app).await) });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!("an admin client left: {error}");
    }
}

async fn respond(door: Door, request: Request<Incoming>, app: &mpsc::Sender<Asked>) -> Response<Full<Bytes>> {
    let answer = match ask_of(door, request).await {
        Ok(ask) => answered(ask, app).await,
        Err(answer) => answer,
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let content_type = header::HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

async fn ask_of(door: Door, request: Request<Incoming>) -> Result<Ask, Answer> {
    let (head, body) = request.into_parts();
    let body = timeout(PATIENCE, Limited::new(body, LARGEST_BODY).collect()).await;
    let body =
        body.map_err(|_| Answer::text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"))?;
    let body = body.map_err(|error| Answer::text(StatusCode::BAD_REQUEST, format!("{error}\n")))?;
    Ask::parse(door, &head.method, head.uri.path(), &body.to_bytes())
}

async fn answered(ask: Ask, app: &mpsc::Sender<Asked>) -> Answer {
    let leaving = || Answer::text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    let (send, receive) = oneshot::channel();
    if app.send((ask, send)).await.is_err() {
        return leaving();
    }
    receive.await.unwrap_or_else(|_| leaving())
}
