//! The releases that are deployed to a group: obtained by reference, verified by digest, and linked with what this node's own
//! manifest grants.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether_core::callback::{PrepareFailure, Step};
use bellwether_core::id::ReleaseId;
use bellwether_core::release::{Artifact, Wanted};
use bellwether_guest::{Component, Engine};
use bellwether_source::{Digest, Reference, Sources};

use crate::release::{Asked, Release, ReleaseSpec, compile};

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

    /// What it names, and how it is to be had.
    fn asked(&self) -> Result<(Reference, Asked), PrepareFailure> {
        let failed = |why: String| PrepareFailure { step: Step::Read, reason: format!("{}: {why}", self.reference) };
        let reference: Reference =
            self.reference.parse().map_err(|error| failed(format!("names no component: {error}")))?;
        // The node's working directory is not the asker's, nor another node's.
        if reference.file().is_some_and(|file| !file.is_absolute()) {
            return Err(failed("is a relative path: use an absolute one".to_owned()));
        }
        let asked = match &self.digest {
            None => Asked::Anew,
            Some(digest) => Asked::Exactly(Digest::from_hex(digest).map_err(|error| failed(error.to_string()))?),
        };
        Ok((reference, asked))
    }
}

impl From<Artifact> for Named {
    fn from(artifact: Artifact) -> Self {
        Self { reference: artifact.reference, digest: Some(artifact.digest) }
    }
}

impl ReleaseSpec {
    /// What the manifest's release is made of.
    pub fn wish(&self) -> Wish {
        let named = |reference: &Reference| Named::new(reference.text());
        Wish { component: named(&self.component), worker: self.worker.as_ref().map(named), config: None }
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
        sources: &Sources,
        wanted: &Wanted,
        took: &mut Vec<(Step, Duration)>,
    ) -> Result<Release, PrepareFailure> {
        let wish = Wish {
            component: wanted.component.clone().into(),
            worker: wanted.worker.clone().map(Named::from),
            config: wanted.config.clone(),
        };
        self.load_wish(engine, sources, &wish, took).await.map(|(release, ..)| release)
    }

    /// Obtains, compiles and links what shall be deployed, and gives it as the group's document has it.
    pub async fn check(
        &self,
        engine: &Engine,
        sources: &Sources,
        wish: Wish,
    ) -> Result<(Wanted, Release), PrepareFailure> {
        let (release, component, worker) = self.load_wish(engine, sources, &wish, &mut Vec::new()).await?;
        Ok((Wanted { component, worker, config: wish.config }, release))
    }

    async fn load_wish(
        &self,
        engine: &Engine,
        sources: &Sources,
        wish: &Wish,
        took: &mut Vec<(Step, Duration)>,
    ) -> Result<(Release, Artifact, Option<Artifact>), PrepareFailure> {
        let mut held = Vec::new();
        let mut get = async |named: &Named, took: &mut Vec<(Step, Duration)>| {
            let (reference, asked) = named.asked()?;
            let (component, obtained) = compile(engine, sources, &self.group, &reference, asked, took).await?;
            held.extend(obtained.pin);
            // A tag may move: what is written down is what it stands for now.
            let artifact = Artifact { reference: obtained.resolved.text(), digest: obtained.digest.hex() };
            Ok::<(Component, Reference, Artifact), PrepareFailure>((component, obtained.resolved, artifact))
        };
        let (component, reference, artifact) = get(&wish.component, took).await?;
        let worker = match &wish.worker {
            Some(worker) => Some(get(worker, &mut Vec::new()).await?),
            None => None,
        };
        let spec = Self {
            worker: worker.as_ref().map(|(_, reference, _)| reference.clone()),
            config: wish.config.as_ref().unwrap_or(&self.config).clone(),
            ..self.clone()
        };
        let tasks = worker.as_ref().map_or(&component, |(component, ..)| component);
        let named = (&reference, artifact.reference.as_str().into());
        let release = spec.unite(&component, tasks, named, held.into(), took)?;
        Ok((release, artifact, worker.map(|(.., artifact)| artifact)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_that_mean_another_file_elsewhere_are_refused() {
        let asked = |reference: &str| Named::new(reference).asked();
        assert!(asked("file:/a/b.wasm").is_ok_and(|(_, asked)| asked == Asked::Anew));
        for bad in ["file:b.wasm", "b.wasm", "file:", ""] {
            assert!(asked(bad).is_err(), "{bad}");
        }
        let settled = Named { digest: Some("00".repeat(32)), ..Named::new("oci://registry/a:1") };
        assert!(settled.asked().is_ok_and(|(_, asked)| matches!(asked, Asked::Exactly(_))));
        assert!(Named { digest: Some("0".into()), ..settled }.asked().is_err());
    }
}
