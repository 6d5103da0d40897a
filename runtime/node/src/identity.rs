//! Who this process is in elections, kept in the data folder: a process that starts again knows what it left behind.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use bellwether_core::id::{Guid, NodeId};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::error::{NodeError, NodeErrorKind};

/// The identity, held for as long as this lives: no other process can take it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub guid: Guid,
    _locked: File,
}

impl Identity {
    /// Takes the identity of the node `id` in `folder`, making folder and identity if need be. Where the folder is a copy of another
    /// node's, as in the image of a machine, the two have different ones all the same: they are made of the folder's and the node's.
    pub fn take(folder: &Path, id: &NodeId) -> Result<Self, NodeError> {
        let local = |what: String| NodeError::new(NodeErrorKind::Local, what);
        let shown = folder.display();
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
            local(format!("the data folder {shown} cannot be made: {error}\n  help: set `node.data_dir` to a folder that can be written to"))
        })?;
        let path = folder.join("guid");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| {
                local(format!(
                    "the data folder {shown} cannot be used: {error}\n  help: set `node.data_dir` to a folder that can be written to"
                ))
            })?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            local(format!(
                "the data folder {shown} is in use by another bellwether process\n  help: stop that one, or give this node a `data_dir` of its own"
            ))
        })?;
        let failed = |error: std::io::Error| local(format!("{} cannot be read or written: {error}", path.display()));
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let guid = match Guid::new(text.trim()) {
            Some(guid) => guid,
            None if text.trim().is_empty() => {
                let fresh = uuid::Uuid::new_v4().simple().to_string();
                file.rewind()
                    .and_then(|()| file.write_all(fresh.as_bytes()))
                    .and_then(|()| file.sync_all())
                    .map_err(failed)?;
                Guid::new(&fresh).ok_or_else(|| local("a fresh GUID has an unexpected form".into()))?
            }
            None => {
                return Err(local(format!(
                    "{} does not hold a GUID\n  help: delete it; the node then makes a new one",
                    path.display()
                )));
            }
        };
        let guid = of_node(&guid, id).ok_or_else(|| local("a node's GUID has an unexpected form".into()))?;
        Ok(Self { guid, _locked: file })
    }
}

/// The GUID of a node in a folder: 16 bytes of a digest of both.
fn of_node(folder: &Guid, id: &NodeId) -> Option<Guid> {
    let digest = Sha256::digest(format!("{folder}/{id}"));
    Guid::new(&hex::encode(&digest[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_lasts_and_is_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let (data, id) = (folder.path().join("a/b"), NodeId::new("a").unwrap());
        let first = Identity::take(&data, &id).unwrap();
        let taken = Identity::take(&data, &id).unwrap_err();
        assert!(taken.to_string().contains("in use by another"), "{taken}");
        let guid = first.guid.clone();
        drop(first);
        assert_eq!(Identity::take(&data, &id).unwrap().guid, guid);
        std::fs::write(data.join("guid"), "x").unwrap();
        assert!(Identity::take(&data, &id).unwrap_err().to_string().contains("does not hold a GUID"));
    }

    #[test]
    fn a_copied_folder_is_another_identity_to_another_node() {
        let folder = tempfile::tempdir().unwrap();
        let (original, copy) = (folder.path().join("original"), folder.path().join("copy"));
        let [a, b] = ["a", "b"].map(|id| NodeId::new(id).unwrap());
        let first = Identity::take(&original, &a).unwrap();
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(original.join("guid"), copy.join("guid")).unwrap();
        assert_ne!(Identity::take(&copy, &b).unwrap().guid, first.guid);
    }
}
