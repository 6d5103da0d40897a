//! One HTTP request, by `wasi:http`. A guest that uses it needs `http` under `[group.grants]`, with the origins that it asks.
#![cfg(target_arch = "wasm32")]

use std::time::Duration;

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header's fields.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Sends a request, and waits for the answer for as long as `timeout`, and never beyond the budget of the callback or task.
///
/// # Errors
/// When there is no answer. Then the request may have been carried out, unless the error says that it cannot have left.
pub fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<Answer, String> {
    let failed = |what: &str| format!("{method} {url}: {what}");
    let request = request(method, url, headers).map_err(|what| failed(&what))?;
    let options = RequestOptions::new();
    let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    options.set_first_byte_timeout(Some(nanoseconds)).map_err(|()| failed("the host knows no time-out"))?;
    let outgoing = request.body().map_err(|()| failed("the request has no body"))?;
    // Before the body is written: the host takes it piece by piece.
    let coming = handle(request, Some(options)).map_err(|error| failed(&shown(&error)))?;
    let written = write(outgoing, body);
    coming.subscribe().block();
    let answer = coming.get().and_then(Result::ok).ok_or_else(|| failed("the answer was taken before"))?;
    // The answer's error says why the body could not be written.
    let answer = answer.map_err(|error| failed(&shown(&error)))?;
    written.map_err(|what| failed(&what))?;
    read(&answer).map_err(|what| failed(&what))
}

fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<OutgoingRequest, String> {
    let (scheme, rest) = url.split_once("://").ok_or("this is no address")?;
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        other => Scheme::Other(other.to_owned()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let method = match method {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        other => Method::Other(other.to_owned()),
    };
    let fields: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let request = OutgoingRequest::new(Fields::from_list(&fields).map_err(|error| format!("its header: {error:?}"))?);
    request.set_method(&method).map_err(|()| "this is no method")?;
    request.set_scheme(Some(&scheme)).map_err(|()| "this is no scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "this is no host")?;
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).map_err(|()| "this is no path")?;
    Ok(request)
}

fn write(outgoing: OutgoingBody, body: &[u8]) -> Result<(), String> {
    let stream = outgoing.write().map_err(|()| "the body cannot be written")?;
    for piece in body.chunks(4096) {
        stream.blocking_write_and_flush(piece).map_err(|error| format!("the body was not taken: {error:?}"))?;
    }
    // What is made of the body must be gone before the body is finished.
    drop(stream);
    OutgoingBody::finish(outgoing, None).map_err(|error| shown(&error))
}

fn read(answer: &IncomingResponse) -> Result<Answer, String> {
    let (status, headers) = (answer.status(), answer.headers().entries());
    let incoming: IncomingBody = answer.consume().map_err(|()| "the answer has no body")?;
    let stream = incoming.stream().map_err(|()| "the answer's body cannot be read")?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(piece) => body.extend(piece),
            Err(StreamError::Closed) => return Ok(Answer { status, headers, body }),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}

/// As the contract of `wasi:http` writes it.
fn shown(error: &ErrorCode) -> String {
    match error {
        ErrorCode::InternalError(Some(why)) => why.clone(),
        ErrorCode::HttpRequestDenied => "HTTP-request-denied: this origin is not granted".to_owned(),
        ErrorCode::ConnectionRefused => "connection-refused".to_owned(),
        ErrorCode::HttpResponseTimeout => "HTTP-response-timeout".to_owned(),
        other => format!("{other:?}"),
    }
}
