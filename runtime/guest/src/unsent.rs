//! What a guest may hold of requests that it has not sent. `limits.memory` does not see it: it lies in this process.

use http_body_util::BodyExt;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{HostOutgoingRequest as _, Method};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostOutgoingRequest, HostOutgoingResponse};

use crate::context::Ctx;

/// Handles of any kind that an instance with a grant of `http` may hold, since each may be a request.
pub(crate) const HANDLES: usize = 1_024;
/// Requests of one instance that have a body.
pub(crate) const BODIES: usize = 64;
/// What the guest writes is taken in pieces of at most this; two wait in each body until it is sent.
pub(crate) const CHUNK: usize = 64 << 10;
/// The fields of one header, with what it takes to keep them.
pub(crate) const FIELDS: usize = 32 << 10;
/// The longest method.
const METHOD: usize = 64;
/// The longest authority: a name has 253 characters, a port 6 with its colon.
const AUTHORITY: usize = 512;
/// The longest path, with its query.
const PATH: usize = 16 << 10;

type Call<'a> = StoreContextMut<'a, Ctx>;
type Request = Resource<HostOutgoingRequest>;
type Response = Resource<HostOutgoingResponse>;

/// Offers `wasi:http` with functions of our own where the library's set no bound.
pub(crate) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    // The version is the library's: with another one these would not take the place of its own, and `tests/http.rs` would tell.
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.func_wrap("[method]outgoing-request.body", |mut store: Call<'_>, (request,): (Request,)| {
        Ok((body(store.data_mut(), request)?,))
    })?;
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut store: Call<'_>, (request, method): (Request, Method)| {
            if matches!(&method, Method::Other(name) if name.len() > METHOD) {
                return Ok((Err(()),));
            }
            Ok((store.data_mut().http().set_method(request, method)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut store: Call<'_>, (request, authority): (Request, Option<String>)| {
            if authority.as_ref().is_some_and(|authority| authority.len() > AUTHORITY) {
                return Ok((Err(()),));
            }
            Ok((store.data_mut().http().set_authority(request, authority)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        |mut store: Call<'_>, (request, path): (Request, Option<String>)| {
            if path.as_ref().is_some_and(|path| path.len() > PATH) {
                return Ok((Err(()),));
            }
            Ok((store.data_mut().http().set_path_with_query(request, path)?,))
        },
    )?;
    // Nobody asks this guest anything: it has no use for a response of its own.
    types.func_wrap("[method]outgoing-response.body", |_: Call<'_>, (_,): (Response,)| {
        Ok((Err::<Resource<HostOutgoingBody>, ()>(()),))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The body of a request, if there is room for another. The room is given back when the body is gone: sent, or dropped with its
/// request, whether the guest has finished it or not.
fn body(ctx: &mut Ctx, request: Request) -> wasmtime::Result<Result<Resource<HostOutgoingBody>, ()>> {
    let Some(room) = ctx.room_for_a_body() else {
        ctx.advise(&format!(
            "a request was given no body: this instance holds {BODIES} requests that have one; send or drop them first"
        ));
        return Ok(Err(()));
    };
    let index = request.rep();
    let mut http = ctx.http();
    let made = http.body(request)?;
    if made.is_ok() {
        let request = http.table.get_mut(&Request::new_borrow(index))?;
        request.body = request.body.take().map(|body| {
            let held = move |error| {
                let _ = &room;
                error
            };
            body.map_err(held).boxed_unsync()
        });
    }
    Ok(made)
}
