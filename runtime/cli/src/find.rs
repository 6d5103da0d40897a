//! Finding the node that is meant.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bellwether_node::admin::{AdminAddress, NodeList, Role, StatusReply};

use crate::args::Global;
use crate::client::{Client, Path as Call};
use crate::exit::{Exit, Failure};
use crate::node;

/// The manifest that verbs look for.
pub const MANIFEST: &str = "bellwether.toml";

/// The admin API that is meant: as given, else that of this folder's manifest, else the one socket below `.bellwether`.
pub fn client(global: &Global) -> Result<Client, Failure> {
    let address = match &global.admin {
        Some(address) => address.clone(),
        None => default_address(Path::new("."), global.color.on_stderr())?,
    };
    Ok(Client::new(address))
}

fn default_address(folder: &Path, color: bool) -> Result<AdminAddress, Failure> {
    let manifest = folder.join(MANIFEST);
    let mut sockets = sockets(folder);
    if manifest.exists() {
        match node::admin_address(&manifest, color) {
            // `dev --data` and a changed manifest serve elsewhere: then look for what does answer.
            Ok(address) if answers(&address) || sockets.len() != 1 => return Ok(address),
            Ok(_) => {}
            Err(failure) if sockets.is_empty() => {
                return Err(failure.help("or say where the node is: --admin ADDRESS"));
            }
            Err(_) => {}
        }
    }
    if sockets.len() > 1 {
        // Nodes that were killed leave their sockets behind.
        sockets.retain(|path| UnixStream::connect(path).is_ok());
    }
    let shown = |path: &PathBuf| format!("unix:{}", path.display());
    match sockets.as_slice() {
        [one] => Ok(AdminAddress::Unix(one.clone())),
        [] => Err(Failure::new(Exit::NoNode, "no node to ask: none was named, and there is none in this folder")
            .help("give --admin ADDRESS or set BELLWETHER_ADMIN, or run this where the node's bellwether.toml is")),
        several => Err(Failure::new(Exit::Usage, "several nodes run in this folder: which one is meant?")
            .why(several.iter().map(shown).collect::<Vec<_>>().join("\n"))
            .help("give one of these with --admin")),
    }
}

fn answers(address: &AdminAddress) -> bool {
    match address {
        AdminAddress::Unix(path) => UnixStream::connect(path).is_ok(),
        AdminAddress::Tcp(_) => true,
    }
}

/// The sockets `.bellwether/*/admin.sock` and `.bellwether/admin.sock`, sorted.
fn sockets(folder: &Path) -> Vec<PathBuf> {
    let data = folder.join(".bellwether");
    let below = std::fs::read_dir(&data).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = below
        .chain(std::iter::once(data.clone()))
        .map(|folder| folder.join("admin.sock"))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found
}

/// Which node of a process a verb is meant for, if `--node` does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    /// The leader of the group, who knows most; or else any that has the group.
    Leader,
    /// Only the one there is: it must be named among several.
    Only,
}

/// The call for a group on the node that is meant.
pub async fn group(client: &Client, global: &Global, group: &str, prefer: Prefer) -> Result<Call, Failure> {
    let node = match &global.node {
        Some(node) => node.clone(),
        None => pick(client, group, prefer).await?,
    };
    Ok(Call::node(&node).then("groups").then(group))
}

async fn pick(client: &Client, group: &str, prefer: Prefer) -> Result<String, Failure> {
    let nodes: NodeList = client.get(&Call::new("v1").then("nodes")).await?;
    let names: Vec<_> = nodes.nodes.iter().map(ToString::to_string).collect();
    match (names.as_slice(), prefer) {
        ([one], _) => Ok(one.clone()),
        ([], _) => Err(Failure::new(Exit::Failed, "the process answers, but no node runs in it any more")),
        (several, Prefer::Only) => {
            Err(Failure::new(Exit::Usage, "this process runs several nodes: which one is meant?")
                .help(format!("give --node with one of: {}", several.join(", "))))
        }
        ([first, ..], Prefer::Leader) => {
            let status: StatusReply = client.get(&Call::new("v1").then("status")).await?;
            let role = |wanted: Option<Role>| {
                status.nodes.iter().find(|node| {
                    let mut groups = node.groups.iter();
                    groups.any(|one| one.name.as_str() == group && wanted.is_none_or(|role| one.role == role))
                })
            };
            // If none has the group, the first says so best: its answer names the groups there are.
            let found = role(Some(Role::Leader)).or_else(|| role(None));
            Ok(found.map_or_else(|| first.clone(), |node| node.node.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn socket(folder: &Path, node: &str) -> UnixListener {
        let data = folder.join(".bellwether").join(node);
        std::fs::create_dir_all(&data).unwrap();
        UnixListener::bind(data.join("admin.sock")).unwrap()
    }

    #[test]
    fn without_a_manifest_the_one_socket_is_it() {
        let folder = tempfile::tempdir().unwrap();
        let none = default_address(folder.path(), false).unwrap_err();
        assert_eq!(none.exit, Exit::NoNode);

        let _a = socket(folder.path(), "a");
        let address = default_address(folder.path(), false).unwrap();
        assert_eq!(address, AdminAddress::Unix(folder.path().join(".bellwether/a/admin.sock")));

        drop(socket(folder.path(), "dead"));
        assert_eq!(default_address(folder.path(), false).unwrap(), address);

        let _b = socket(folder.path(), "b");
        let several = default_address(folder.path(), false).unwrap_err();
        assert_eq!(several.exit, Exit::Usage);
        assert!(several.why[0].contains("a/admin.sock") && several.why[0].contains("b/admin.sock"), "{several:?}");
    }
}
