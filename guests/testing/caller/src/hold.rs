//! Requests that are never sent or never heard of again, and what the host lets one hold of them.

use std::mem::forget;

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{Fields, Method, OutgoingRequest, OutgoingResponse, Scheme};

/// `bodies N`, `responses N`, `method N`, `authority N`, `path N`, `fields N`, `question URL`, `answer URL` or `answers N URL`.
pub fn act(order: &str) -> Result<String, String> {
    let (what, how) = order.split_once(' ').unwrap_or((order, ""));
    let times = || how.parse::<usize>().map_err(|error| format!("{how:?}: {error}"));
    let request = OutgoingRequest::new(Fields::new());
    let taken = |set: Result<(), ()>| Ok(if set.is_ok() { "taken" } else { "refused" }.to_owned());
    match what {
        "bodies" => bodies(times()?),
        "responses" => {
            let responses = (0..times()?).map(|_| OutgoingResponse::new(Fields::new()));
            Ok(format!("{} bodies", responses.filter(|response| response.body().is_ok()).count()))
        }
        "method" => taken(request.set_method(&Method::Other("M".repeat(times()?)))),
        "authority" => taken(request.set_authority(Some(&"a".repeat(times()?)))),
        "path" => taken(request.set_path_with_query(Some(&format!("/{}", "p".repeat(times()?))))),
        "fields" => {
            let (fields, piece) = (Fields::new(), vec![b'x'; 1024]);
            (0..times()?).try_for_each(|_| fields.append("x-held", &piece)).map_err(|error| format!("{error:?}"))?;
            Ok("taken".to_owned())
        }
        "question" | "answer" => ask(request, how, what == "answer").map(|()| "forgotten".to_owned()),
        "answers" => {
            let (times, url) = how.split_once(' ').ok_or("how many of what?")?;
            let times: usize = times.parse().map_err(|error| format!("{times:?}: {error}"))?;
            (0..times).try_for_each(|_| ask(OutgoingRequest::new(Fields::new()), url, true))?;
            Ok(format!("{times} forgotten"))
        }
        other => Err(format!("not an order: {other:?}")),
    }
}

/// Makes requests, fills their bodies as far as the host lets it, and keeps the requests alone.
fn bodies(times: usize) -> Result<String, String> {
    let (mut held, mut filled, mut written) = (Vec::new(), 0, 0);
    for _ in 0..times {
        let request = OutgoingRequest::new(Fields::new());
        if let Ok(body) = request.body() {
            filled += 1;
            let stream = body.write().map_err(|()| "the body cannot be written")?;
            loop {
                let room = stream.check_write().map_err(|error| format!("{error:?}"))?;
                let Ok(room @ 1..) = usize::try_from(room) else { break };
                stream.write(&vec![b'x'; room]).map_err(|error| format!("{error:?}"))?;
                written += room;
            }
        }
        held.push(request);
    }
    Ok(format!("{filled} bodies, {} KiB", written >> 10))
}

/// Sends a request and never lets go of what it becomes.
fn ask(request: OutgoingRequest, url: &str, wait: bool) -> Result<(), String> {
    let (scheme, rest) = url.split_once("://").ok_or("this is no address")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).map_err(|()| "this is no scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "this is no host")?;
    request.set_path_with_query(Some(path)).map_err(|()| "this is no path")?;
    let coming = handle(request, None).map_err(|error| format!("{error:?}"))?;
    if wait {
        coming.subscribe().block();
        let answer = coming.get().and_then(Result::ok).ok_or("the answer was taken before")?;
        forget(answer.map_err(|error| format!("{error:?}"))?);
    }
    forget(coming);
    Ok(())
}
