//! The releases that are deployed to a group: obtained by reference, verified by digest, and linked with what this node's own
//! manifest grants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellwether_core::callback::{PrepareFailure, Step};
use bellwether_core::id::ReleaseId;
use bellwether_core::release::{Artifact, Wanted};
use bellwether_guest::{Component, Engine};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::clock;
use crate::guests::{Release, ReleaseSpec, named, read};

/// What shall be deployed, before anybody has looked at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub component: Named,
    /// The component for tasks, if they have one of their own.
    pub worker: Option<Named>,
    /// The configuration; none for the manifest's.
    pub config: Option<BTreeMap<String, String>>,
}

/// A component by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub reference: String,
    /// The digest that it must have, if that is settled already.
    pub digest: Option<String>,
}

impl Named {
    pub fn new(reference: impl Into<String>) -> Self {
        Self { reference: reference.into(), digest: None }
    }

    fn file(path: &Path) -> Self {
        Self::new(format!("file:{}", path.display()))
    }
}

impl From<Artifact> for Named {
    fn from(artifact: Artifact) -> Self {
        Self { reference: artifact.reference, digest: Some(artifact.digest) }
    }
}

/// What was obtained: the component as the document names it, and its bytes.
struct Obtained {
    artifact: Artifact,
    bytes: Bytes,
}

/// Gets a component by its name, and verifies its digest if one is expected.
async fn obtain(named: &Named) -> Result<Obtained, PrepareFailure> {
    let failed = |reason: String| PrepareFailure { step: Step::Read, reason: format!("{}: {reason}", named.reference) };
    let bytes = read(&path(&named.reference).map_err(failed)?).await.map_err(failed)?;
    let digest = hex::encode(Sha256::digest(&bytes));
    if let Some(expected) = named.digest.as_ref().filter(|expected| **expected != digest) {
        return Err(failed(format!(
            "has the digest sha256:{digest}, and what was deployed has sha256:{expected}: put the file that was deployed there, on \
             this node as on the others, or deploy what is there now"
        )));
    }
    Ok(Obtained { artifact: Artifact { reference: named.reference.clone(), digest, signatures: Vec::new() }, bytes })
}

/// The file that a reference names.
fn path(reference: &str) -> Result<PathBuf, String> {
    let Some(path) = reference.strip_prefix("file:") else {
        return Err("is no reference that this node understands: use file: and an absolute path".to_owned());
    };
    let path = PathBuf::from(path);
    // The node's working directory is not the asker's, nor another node's.
    if path.is_absolute() { Ok(path) } else { Err("names a relative path: use file: and an absolute one".to_owned()) }
}

async fn compile(
    engine: &Engine,
    obtained: Obtained,
    took: &mut Vec<(Step, Duration)>,
) -> Result<(Component, Artifact), PrepareFailure> {
    let before = clock::now();
    let component = engine
        .compile(obtained.bytes)
        .await
        .map_err(|error| named(&obtained.artifact.reference, PrepareFailure::from(error)))?;
    took.push((Step::Compile, clock::now().since(before)));
    Ok((component, obtained.artifact))
}

impl ReleaseSpec {
    /// What the manifest's release is made of.
    pub fn wish(&self) -> Wish {
        Wish { component: Named::file(&self.component), worker: self.worker.as_deref().map(Named::file), config: None }
    }

    /// The id that a deployed release has on this node.
    pub fn wanted_id(&self, wanted: &Wanted) -> ReleaseId {
        let worker = wanted.worker.as_ref().unwrap_or(&wanted.component);
        self.id(&wanted.component.digest, &worker.digest, wanted.config.as_ref().unwrap_or(&self.config))
    }

    /// Obtains, compiles and links a deployed release.
    pub async fn load_wanted(
        &self,
        engine: &Engine,
        wanted: &Wanted,
        took: &mut Vec<(Step, Duration)>,
    ) -> Result<Release, PrepareFailure> {
        let wish = Wish {
            component: wanted.component.clone().into(),
            worker: wanted.worker.clone().map(Named::from),
            config: wanted.config.clone(),
        };
        self.load_wish(engine, &wish, took).await.map(|(release, ..)| release)
    }

    /// Obtains, compiles and links what shall be deployed, and gives it as the group's document has it.
    pub async fn check(&self, engine: &Engine, wish: Wish) -> Result<Wanted, PrepareFailure> {
        let (_, component, worker) = self.load_wish(engine, &wish, &mut Vec::new()).await?;
        Ok(Wanted { component, worker, config: wish.config })
    }

    async fn load_wish(
        &self,
        engine: &Engine,
        wish: &Wish,
        took: &mut Vec<(Step, Duration)>,
    ) -> Result<(Release, Artifact, Option<Artifact>), PrepareFailure> {
        let before = clock::now();
        let component = obtain(&wish.component).await?;
        let worker = match &wish.worker {
            Some(worker) => Some(obtain(worker).await?),
            None => None,
        };
        took.push((Step::Read, clock::now().since(before)));
        let (component, artifact) = compile(engine, component, took).await?;
        let worker = match worker {
            Some(worker) => Some(compile(engine, worker, &mut Vec::new()).await?),
            None => None,
        };
        let config = wish.config.as_ref().unwrap_or(&self.config);
        let tasks = worker.as_ref().map_or_else(
            || (component.clone(), artifact.reference.clone()),
            |(component, artifact)| (component.clone(), artifact.reference.clone()),
        );
        let release = self.link((component, artifact.reference.clone()), tasks, config, took)?;
        Ok((release, artifact, worker.map(|(_, artifact)| artifact)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_component_is_what_its_digest_says_or_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.wasm");
        std::fs::write(&file, b"what was deployed").unwrap();
        let named = Named::file(&file);
        let obtained = obtain(&named).await.unwrap();
        assert_eq!(obtained.artifact.digest, hex::encode(Sha256::digest(b"what was deployed")));
        let settled = Named::from(obtained.artifact);
        assert!(obtain(&settled).await.is_ok());
        std::fs::write(&file, b"something else").unwrap();
        let failure = obtain(&settled).await.err().unwrap();
        assert_eq!(failure.step, Step::Read);
        assert!(failure.reason.contains("a.wasm: has the digest sha256:"), "{}", failure.reason);
        std::fs::remove_file(&file).unwrap();
        let gone = obtain(&settled).await.err().unwrap();
        assert!(gone.reason.contains("there is no such file"), "{}", gone.reason);
    }

    #[test]
    fn references_that_mean_another_file_elsewhere_are_refused() {
        assert_eq!(path("file:/a/b.wasm"), Ok(PathBuf::from("/a/b.wasm")));
        for bad in ["file:b.wasm", "file:", "/a/b.wasm", "oci://registry/a:1", ""] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
