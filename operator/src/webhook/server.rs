//! The webhook over HTTPS: POST /validate.
//!
//! Comes in: a listener, the certificate in use, the function that validates. Goes out: answered AdmissionReviews. The
//! judging runs beside the connections with a limit, and if it panics or takes too long the object is admitted with a
//! warning: a bug here must not stop anybody's work, and the controllers judge again before they run anything.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::review::{self, Answer, Question, Validate};
use crate::telemetry::serve::{Answer as HttpAnswer, serve, text};

/// The API server's own limit of a request.
const BODY: usize = 3 * 1024 * 1024;
/// Time for a body to arrive.
const ARRIVAL: Duration = Duration::from_secs(2);
/// Time to judge one object; below the two seconds that the API server waits, so that the answer still counts.
const JUDGING: Duration = Duration::from_millis(1500);

/// Serves until `stop`.
///
/// # Errors
/// When TLS cannot be set up, which would be a bug.
pub async fn run(
    listener: TcpListener,
    live: &Live,
    validate: Validate,
    stop: CancellationToken,
) -> Result<(), rustls::Error> {
    let acceptor = TlsAcceptor::from(Arc::new(live.server_config()?));
    let wrap = move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await }
    };
    serve(listener, wrap, move |request| answer(request, validate), stop).await;
    Ok(())
}

async fn answer(request: Request<Incoming>, validate: Validate) -> HttpAnswer {
    if request.uri().path() != "/validate" {
        return text(StatusCode::NOT_FOUND, "there is /validate\n");
    }
    if *request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
    }
    let body = match timeout(ARRIVAL, Limited::new(request.into_body(), BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the review is larger than 3 MiB\n");
        }
        Ok(Err(error)) => return text(StatusCode::BAD_REQUEST, format!("cannot read the body: {error}\n")),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n"),
    };
    let question = match review::read(&body) {
        Ok(question) => Arc::new(question),
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let answer = judge(question.clone(), validate).await;
    let mut response = text(StatusCode::OK, review::write(&question, &answer).to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn judge(question: Arc<Question>, validate: Validate) -> Answer {
    let judging = tokio::task::spawn_blocking(move || review::judge(&question, validate));
    match timeout(JUDGING, judging).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            tracing::error!(%error, "a validation panicked; the object is admitted. This is a bug");
            Answer::unjudged("the check failed")
        }
        Err(_) => {
            tracing::warn!("a validation took longer than {JUDGING:?}; the object is admitted");
            Answer::unjudged("the check took too long")
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
