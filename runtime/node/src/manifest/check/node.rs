//! `[node]`.

use std::net::SocketAddr;
use std::path::Path;

use bellwether_core::id::NodeId;

use super::super::address::HostPort;
use super::super::model::{Node, Tls};
use super::super::raw::{RawNode, RawTls};
use super::Context;
use crate::admin::AdminAddress;

/// The longest path of a Unix socket: what `sockaddr_un` holds, less its closing NUL.
const MAX_SOCKET_PATH: usize = 107;

/// The largest PEM file.
const MAX_PEM: usize = 1 << 20;

pub(super) fn check(cx: &mut Context<'_>, raw: RawNode) -> Option<Node> {
    let id = raw.id.and_then(|id| {
        cx.take(
            "node.id",
            NodeId::new(id),
            "is not a node id",
            "give each node a name of its own, as in `id = \"node-1\"`",
        )
    });
    let advertise = match raw.advertise {
        Some(text) => cx.address("node.advertise", &text, true),
        None => Some(HostPort { host: "127.0.0.1".to_owned(), port: 0 }),
    };
    if advertise.as_ref().is_some_and(HostPort::is_unspecified) {
        cx.tell(
            cx.problem("node.advertise", "`node.advertise` is not an address that other nodes can connect to")
                .because("this means every address of the machine")
                .help("advertise one address or name of this machine; to listen on all of them, set `listen` to this value"),
        );
    }
    let listen = match raw.listen {
        Some(text) => cx.address("node.listen", &text, true),
        None => advertise.clone(),
    };
    if let (Some(advertise), Some(listen)) = (&advertise, &listen)
        && listen.port == 0
        && advertise.port != 0
    {
        cx.tell(
            cx.problem("node.listen", "`node.listen` takes any free port, but `node.advertise` names one")
                .because("this port is chosen when the node starts")
                .related(cx.places.value_or_parent("node.advertise"), "other nodes would connect here")
                .help(format!("listen on port {}, or advertise port 0", advertise.port)),
        );
    }
    let data_dir = match (raw.data_dir, &id) {
        (Some(path), _) => cx.path("node.data_dir", &path),
        (None, Some(id)) => Some(super::resolve(cx.base, &Path::new(".bellwether").join(id.as_str()))),
        (None, None) => None,
    };
    if let Some(path) = data_dir.as_ref().filter(|path| path.exists() && !path.is_dir()) {
        let message = format!("the node's data folder is not a folder: {}", path.display());
        cx.tell(
            cx.problem("node.data_dir", message)
                .because("a file of this name is in the way")
                .help("set `data_dir` to a folder"),
        );
    }
    let admin = match (raw.admin, &data_dir) {
        (Some(text), _) => admin(cx, &text),
        (None, Some(data_dir)) => Some(AdminAddress::Unix(data_dir.join(super::super::ADMIN_SOCKET))),
        (None, None) => None,
    };
    if let Some(AdminAddress::Unix(path)) = &admin
        && path.as_os_str().len() > MAX_SOCKET_PATH
    {
        let message = format!("the path of the admin socket is too long: {}", path.display());
        let key = if cx.written("node.admin") { "node.admin" } else { "node.data_dir" };
        cx.tell(
            cx.problem(key, message)
                .because(format!("it has {} bytes; the most is {MAX_SOCKET_PATH}", path.as_os_str().len()))
                .help("set `admin` to a shorter path, as in `admin = \"unix:/run/bellwether/admin.sock\"`"),
        );
    }
    let wants_tls = raw.tls.is_some();
    let tls = raw.tls.and_then(|raw| tls(cx, raw));
    if wants_tls && tls.is_none() {
        return None;
    }
    Some(Node {
        id: id?,
        advertise: advertise?,
        listen: listen?,
        data_dir: data_dir?,
        admin: admin?,
        reaper: raw.reaper.unwrap_or(true),
        tls,
    })
}

fn admin(cx: &mut Context<'_>, text: &str) -> Option<AdminAddress> {
    const KEY: &str = "node.admin";
    const HELP: &str = "write `admin = \"unix:PATH\"` or a loopback address, as in `admin = \"127.0.0.1:7401\"`";
    if let Some(path) = text.strip_prefix("unix:") {
        return cx.path(KEY, Path::new(path)).map(AdminAddress::Unix);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Some(AdminAddress::Tcp(address)),
        Ok(_) => {
            cx.tell(
                cx.problem(KEY, "`node.admin` can be reached from other machines")
                    .because("this is not a loopback address")
                    .help("the admin API asks nobody who they are: keep it on this machine, and put a proxy that does in front")
                    .help(HELP),
            );
            None
        }
        Err(_) => {
            let why = if text.contains('/') {
                "a path needs `unix:` before it"
            } else {
                "neither `unix:PATH` nor an IP address and port"
            };
            cx.tell(cx.problem(KEY, "`node.admin` is not an address").because(why).help(HELP));
            None
        }
    }
}

fn tls(cx: &mut Context<'_>, raw: RawTls) -> Option<Tls> {
    let cert = raw.cert.and_then(|path| pem(cx, "node.tls.cert", &path, "CERTIFICATE-----"));
    let key = raw.key.and_then(|path| pem(cx, "node.tls.key", &path, "PRIVATE KEY-----"));
    let ca = raw.ca.and_then(|path| pem(cx, "node.tls.ca", &path, "CERTIFICATE-----"));
    Some(Tls { cert: cert?, key: key?, ca: ca? })
}

/// The path of a PEM file that has a block of the right kind. Whether the block is sound shows when it is used.
pub(super) fn pem(cx: &mut Context<'_>, key: &str, path: &Path, kind: &str) -> Option<std::path::PathBuf> {
    let (full, contents) = cx.contents(key, path, "the file", MAX_PEM)?;
    let contents = String::from_utf8_lossy(&contents);
    if contents.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(kind)) {
        return Some(full);
    }
    let kind = kind.trim_end_matches('-');
    let reason = format!("there is no `-----BEGIN … {kind}-----` in it").replace("… CERTIFICATE", "CERTIFICATE");
    cx.tell_path(key, path, &full, &format!("not a PEM file with a {}", kind.to_lowercase()), reason);
    None
}
