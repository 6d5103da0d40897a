//! What a group runs: how a release is obtained, compiled, linked and named.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellwether_core::callback::{PrepareFailure, Step};
use bellwether_core::id::{GroupName, ReleaseId};
use bellwether_guest::{Component, Engine, Grants, Limits, Linked, PoolOptions};
use bellwether_source::store::Pin;
use bellwether_source::{Artifact, Digest, Reference, SourceError, Sources};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::clock;
use crate::manifest::{self, MAX_CONFIG};

/// What a group runs, but for the component itself: the manifest's part of every release.
#[derive(Debug, Clone)]
pub(crate) struct ReleaseSpec {
    pub group: GroupName,
    pub component: Reference,
    pub worker: Option<Reference>,
    pub config: BTreeMap<String, String>,
    pub grants: Grants,
    pub limits: Limits,
    pub pool: PoolOptions,
    pub drain: Duration,
    pub probation: Duration,
}

impl ReleaseSpec {
    pub fn new(group: &manifest::Group, drain: Duration) -> Self {
        Self {
            group: group.name.clone(),
            component: group.component.clone(),
            worker: group.worker.component.clone(),
            config: group.config.clone(),
            grants: group.grants.clone(),
            limits: group.limits.clone(),
            pool: PoolOptions {
                parallelism: group.worker.parallelism as usize,
                queue: group.worker.queue as usize,
                ..PoolOptions::default()
            },
            drain,
            probation: group.probation.lasts,
        }
    }

    /// The same with some settings changed.
    pub fn with(&self, changed: BTreeMap<String, String>) -> Result<Self, PrepareFailure> {
        let mut spec = self.clone();
        spec.config.extend(changed);
        let size: usize = spec.config.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > MAX_CONFIG {
            let reason = format!(
                "the configuration has {size} bytes, names and values together; the most is {MAX_CONFIG}: put large data into a file, \
                 and grant its folder"
            );
            return Err(PrepareFailure { step: Step::Check, reason });
        }
        Ok(spec)
    }

    /// The release as one unit: whatever differs makes another one.
    pub fn id(&self, component: &str, worker: &str, config: &BTreeMap<String, String>) -> ReleaseId {
        #[derive(Serialize)]
        struct Unit<'a> {
            component: &'a str,
            worker: &'a str,
            config: &'a BTreeMap<String, String>,
            grants: &'a Grants,
            limits: &'a Limits,
        }
        let unit = Unit { component, worker, config, grants: &self.grants, limits: &self.limits };
        // Serialising these cannot fail: all keys are text.
        let text = serde_json::to_vec(&unit).unwrap_or_default();
        ReleaseId(hex::encode(Sha256::digest(text)).into())
    }

    /// Obtains, compiles and links the component that `reference` names, and the worker's, and notes how long each step took.
    pub async fn load(
        &self,
        engine: &Engine,
        sources: &Sources,
        reference: &Reference,
        asked: Asked,
        took: &mut Vec<(Step, Duration)>,
    ) -> Result<Release, Unloadable> {
        let (component, artifact) = compile(engine, sources, &self.group, reference, asked, took).await?;
        let from = artifact.resolved.to_string().into();
        let mut held: Vec<_> = artifact.pin.into_iter().collect();
        let worker = match &self.worker {
            Some(reference) => {
                let (worker, artifact) =
                    compile(engine, sources, &self.group, reference, Asked::AtStart, &mut Vec::new()).await?;
                held.extend(artifact.pin);
                worker
            }
            None => component.clone(),
        };
        Ok(self.unite(&component, &worker, (reference, from), held.into(), took)?)
    }

    /// Makes a release of components that have been compiled.
    pub fn unite(
        &self,
        component: &Component,
        worker: &Component,
        (reference, from): (&Reference, Arc<str>),
        held: Arc<[Arc<Pin>]>,
        took: &mut Vec<(Step, Duration)>,
    ) -> Result<Release, PrepareFailure> {
        let before = clock::now();
        let release = Release {
            id: self.id(component.digest(), worker.digest(), &self.config),
            reference: reference.clone(),
            component: from,
            linked: self.link(component, reference)?,
            tasks: self.link(worker, self.worker.as_ref().unwrap_or(reference))?,
            held,
        };
        took.push((Step::Check, clock::now().since(before)));
        Ok(release)
    }

    /// Links a component with what the manifest grants.
    pub fn link(&self, component: &Component, reference: &Reference) -> Result<Linked, PrepareFailure> {
        let linked = component.link(&self.grants, &self.limits, self.config.clone());
        linked.map_err(|error| named(reference, PrepareFailure::from(error)))
    }
}

/// Obtains and compiles a component, and notes how long each step took. Of the artifact, the bytes are not kept.
pub(crate) async fn compile(
    engine: &Engine,
    sources: &Sources,
    group: &GroupName,
    reference: &Reference,
    asked: Asked,
    took: &mut Vec<(Step, Duration)>,
) -> Result<(Component, Artifact), Unloadable> {
    let mut artifact = match asked {
        Asked::Anew => sources.obtain(reference, None, group).await?,
        Asked::Exactly(digest) => sources.obtain(reference, Some(&digest), group).await?,
        Asked::AtStart => sources.obtain_or_last(reference, group).await?,
    };
    took.extend(artifact.took);
    let began = clock::now();
    let bytes = std::mem::take(&mut artifact.bytes);
    let component = engine.compile(bytes).await.map_err(|error| named(reference, PrepareFailure::from(error)))?;
    took.push((Step::Compile, clock::now().since(began)));
    Ok((component, artifact))
}

/// Who asks for a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Somebody who wants to know if what it names cannot be reached.
    Anew,
    /// Somebody who wants this one and no other.
    Exactly(Digest),
    /// A node that starts: what a tag stood for last will do.
    AtStart,
}

/// Why a release could not be loaded.
#[derive(Debug)]
pub(crate) enum Unloadable {
    /// Its component could not be had.
    Absent(SourceError),
    /// The component will not do.
    Unfit(PrepareFailure),
}

impl From<SourceError> for Unloadable {
    fn from(error: SourceError) -> Self {
        Self::Absent(error)
    }
}

impl From<PrepareFailure> for Unloadable {
    fn from(failure: PrepareFailure) -> Self {
        Self::Unfit(failure)
    }
}

impl From<Unloadable> for PrepareFailure {
    fn from(why: Unloadable) -> Self {
        match why {
            Unloadable::Absent(error) => Self { step: error.step, reason: error.to_string() },
            Unloadable::Unfit(failure) => failure,
        }
    }
}

fn named(reference: &Reference, failure: PrepareFailure) -> PrepareFailure {
    PrepareFailure { reason: format!("{reference}: {}", failure.reason), ..failure }
}

/// A release that can be instantiated. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Release {
    pub id: ReleaseId,
    /// What named its component.
    pub reference: Reference,
    /// What its component was obtained from, for people.
    pub component: Arc<str>,
    pub linked: Linked,
    pub tasks: Linked,
    /// Keeps its components in the store.
    pub held: Arc<[Arc<Pin>]>,
}
